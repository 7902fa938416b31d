/**
 * A child of the build: runs a fresh bundle once, as a user would, and keeps V8's code of every function that the run
 * compiled, beside what an earlier run has left. Usage: warm-up.ts DIRECTORY PROGRAM ARGUMENT…
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { compileBundle } from "./bundle-script.ts";

const [, , directory = "", program = "", ...args] = process.argv;
const path = join(directory, `${program}.code`);
const bundle = compileBundle(directory, program, existsSync(path) ? readFileSync(path) : undefined);
process.on("exit", (code) => {
  if (code === 0) writeFileSync(path, bundle.codeCache());
});
process.argv = [process.execPath, join(directory, `${program}.cjs`), ...args];
bundle.run();
