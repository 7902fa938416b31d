import { test } from "vitest";

/** Whether this process may make namespaces, mounts and cgroups. */
export const isRoot = process.getuid?.() === 0;

if (!isRoot && process.env.CI === "true") throw new Error("CI runs every test: start it as root");

/** A test that needs root: left out, and counted as skipped, elsewhere; with CI=true leaving it out fails. */
export const rootTest = test.skipIf(!isRoot);
