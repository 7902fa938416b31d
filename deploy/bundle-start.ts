/**
 * What `deploy/out/<program>.cjs` is made of: runs the program's bundle with V8's code of the build. When a source has
 * changed since the build it runs the sources instead: an old bundle makes a start slow, never wrong.
 */
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { compileBundle } from "./bundle-script.ts";

/** Put in by the build; the paths are relative to the checkout. */
declare const BUILT: {
  readonly program: string;
  /** The source that starts it. */
  readonly entry: string;
  /** What it was made of, and when each was changed last. */
  readonly sources: readonly (readonly [path: string, mtimeMs: number])[];
};

const checkout = join(__dirname, "../..");

/** An installation without sources has nothing to compare with. Takes 0.5 ms. */
function isStale(): boolean {
  if (!existsSync(join(checkout, BUILT.entry))) return false;
  return BUILT.sources.some(
    ([path, mtimeMs]) => statSync(`${checkout}/${path}`, { throwIfNoEntry: false })?.mtimeMs !== mtimeMs,
  );
}

function readIfPresent(path: string): Buffer | undefined {
  return existsSync(path) ? readFileSync(path) : undefined;
}

if (isStale()) void import(pathToFileURL(join(checkout, BUILT.entry)).href);
else compileBundle(__dirname, BUILT.program, readIfPresent(join(__dirname, `${BUILT.program}.code`))).run();
