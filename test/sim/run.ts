/**
 * Runs simulations from the command line:
 *
 *   SEED=42 npm run sim                     one run, with every event
 *   npm run sim -- --seeds 1000 --from 1    many; stops at the first that fails
 */
import { parseArgs } from "node:util";
import { report, simulate } from "./simulate.ts";

/** With --keep-going: enough to see what is wrong. */
const FAILURES_MAX = 10;

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "100" },
    from: { type: "string", default: "1" },
    "keep-going": { type: "boolean", default: false },
  },
});

const seed = process.env.SEED;
process.exitCode =
  seed === undefined ? await runMany(Number(values.from), Number(values.seeds)) : await runOne(Number(seed));

async function runOne(seed: number): Promise<number> {
  const result = await simulate({ seed, print: (line) => console.log(line) });
  console.log(
    `\nseed ${seed}: ${result.events} events, ${result.revisions} revisions, digest ${result.digest.slice(0, 12)}`,
  );
  for (const violation of result.violations) console.log(violation);
  console.log(result.violations.length === 0 ? `settled in ${result.settledMs / 1000} s` : "FAILED");
  return result.violations.length === 0 ? 0 : 1;
}

async function runMany(from: number, count: number): Promise<number> {
  const startMs = performance.now();
  let failed = 0;
  for (let seed = from; seed < from + count; seed++) {
    const result = await simulate({ seed });
    if (result.violations.length === 0) continue;
    failed += 1;
    if (failed > FAILURES_MAX) break;
    if (!values["keep-going"]) {
      console.log(report(result));
      return 1;
    }
    console.log(`SEED=${seed} npm run sim: ${result.violations[0]}`);
  }
  const seconds = (performance.now() - startMs) / 1000;
  console.log(`${count} seeds from ${from}, ${failed} failed, ${(count / seconds).toFixed(1)} seeds/s`);
  return failed === 0 ? 0 : 1;
}
