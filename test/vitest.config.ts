import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

const root = new URL("..", import.meta.url).pathname;
/** How much slower the machine is than most: test/vm emulates a processor. */
const patience = Number(process.env.TEST_PATIENCE ?? 1);
const integration = "test/integration/**/*.test.ts";
/** What only `--long` runs: minutes, or packages that nothing else needs. */
const long = process.env.SWARM_TEST_LONG === undefined ? ["**/*.long.test.ts"] : [];
/** They compare what the whole machine has before and after, or need all of its processors. */
const alone = ["test/integration/quickstart.test.ts", "test/vm/*.test.ts"];
/** Most tests wait for programs and timers most of the time; by itself vitest leaves one of two processors idle. */
const workers = Math.max(2, availableParallelism());

export default defineConfig({
  root,
  test: {
    projects: [
      {
        root,
        test: {
          name: "unit",
          include: ["**/*.test.ts"],
          exclude: ["node_modules/**", integration, "test/vm/**", ...long],
          maxWorkers: workers,
          testTimeout: 30_000 * patience,
          hookTimeout: 30_000 * patience,
        },
      },
      {
        root,
        test: {
          name: "integration",
          include: [integration],
          exclude: [...alone, ...long],
          maxWorkers: 2,
          testTimeout: 180_000,
          hookTimeout: 180_000,
        },
      },
      {
        root,
        test: {
          name: "alone",
          include: alone,
          fileParallelism: false,
          testTimeout: 180_000,
          hookTimeout: 180_000,
        },
      },
      {
        root,
        test: {
          // What the machine of test/vm runs: its kernel has what a host's may lack.
          name: "guest",
          include: ["test/vm/guest/**/*.test.ts"],
          fileParallelism: false,
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
});
