import { defineConfig } from "vitest/config";

const root = new URL("..", import.meta.url).pathname;
/** How much slower the machine is than most: test/vm emulates a processor. */
const patience = Number(process.env.TEST_PATIENCE ?? 1);
const integration = "test/integration/**/*.test.ts";

export default defineConfig({
  root,
  test: {
    projects: [
      {
        root,
        test: {
          name: "unit",
          include: ["**/*.test.ts"],
          exclude: ["node_modules/**", integration, "test/vm/**"],
          testTimeout: 30_000 * patience,
          hookTimeout: 30_000 * patience,
        },
      },
      {
        root,
        test: {
          name: "integration",
          include: [integration, "test/vm/*.test.ts"],
          // Hosts made of namespaces share the machine's two cores and its nft tables: one file at a time.
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
