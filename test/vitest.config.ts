import { defineConfig } from "vitest/config";

const root = new URL("..", import.meta.url).pathname;
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
          testTimeout: 30_000,
          hookTimeout: 30_000,
        },
      },
      {
        root,
        test: {
          name: "integration",
          include: [integration, "test/vm/**/*.test.ts"],
          // Hosts made of namespaces share the machine's two cores and its nft tables: one file at a time.
          fileParallelism: false,
          testTimeout: 180_000,
          hookTimeout: 180_000,
        },
      },
    ],
  },
});
