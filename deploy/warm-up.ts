/**
 * A child of the build: runs a fresh bundle once, as a user would, and keeps V8's code of every function that the run
 * compiled. Usage: warm-up.ts DIRECTORY PROGRAM ARGUMENT…
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { compileBundle } from "./bundle-script.ts";

const [, , directory = "", program = "", ...args] = process.argv;
const bundle = compileBundle(directory, program);
process.on("exit", (code) => {
  if (code === 0) writeFileSync(join(directory, `${program}.code`), bundle.codeCache());
});
process.argv = [process.execPath, join(directory, `${program}.cjs`), ...args];
bundle.run();
