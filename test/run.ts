/** The second half of `test/run`: checks, then tests, then one line that counts them. */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const ROOT = new URL("..", import.meta.url).pathname;
const BIN = join(ROOT, "node_modules/.bin");
const isRoot = process.getuid?.() === 0;
const args = process.argv.slice(2);
const patterns = args.filter((argument) => !argument.startsWith("-"));
if (args.includes("--long")) process.env.SWARM_TEST_LONG = "1";

interface Totals {
  passed: number;
  failed: number;
  skipped: number;
}

function run(program: string, programArgs: readonly string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(join(BIN, program), programArgs, {
      cwd: ROOT,
      stdio: ["ignore", "inherit", "inherit"],
      // Tools start by "env node": that has to be the project's own.
      env: { ...process.env, PATH: `${BIN}:${process.env.PATH}` },
    });
    child.on("error", reject);
    child.on("close", (code) => resolve(code ?? 1));
  });
}

/** Runs one project of vitest.config.ts and adds up its report. A run that wrote no report counts as one failure. */
async function runProject(name: string, totals: Totals): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "swarm-test-"));
  const report = join(directory, "report.json");
  try {
    const options = ["run", "--config", "test/vitest.config.ts", "--project", name, "--passWithNoTests"];
    const code = await run("vitest", [
      ...options,
      "--reporter=default",
      "--reporter=json",
      `--outputFile.json=${report}`,
      ...patterns,
    ]);
    const { numPassedTests = 0, numFailedTests = 0, numPendingTests = 0 } = JSON.parse(readFileSync(report, "utf8"));
    totals.passed += numPassedTests;
    totals.failed += code !== 0 && numFailedTests === 0 ? 1 : numFailedTests;
    totals.skipped += numPendingTests;
  } catch (error) {
    process.stderr.write(`${name}: no report: ${error instanceof Error ? error.message : String(error)}\n`);
    totals.failed += 1;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const totals: Totals = { passed: 0, failed: 0, skipped: 0 };
if (patterns.length === 0) {
  const code = await run("node", ["test/check.ts"]);
  if (code === 0) totals.passed += 1;
  else totals.failed += 1;
}
await runProject("unit", totals);
if (isRoot) for (const project of ["integration", "alone"]) await runProject(project, totals);
else
  process.stdout.write("left out without root: the tests that make namespaces, mounts, cgroups or virtual machines\n");

if (totals.skipped > 0) process.stdout.write(`${totals.skipped} tests were left out: they need root\n`);
const incomplete = process.env.CI === "true" && (totals.skipped > 0 || !isRoot);
if (incomplete) {
  process.stdout.write("CI runs every test: leaving some out is a failure\n");
  totals.failed += 1;
}
process.stdout.write(`${totals.passed} passed, ${totals.failed} failed\n`);
process.exitCode = totals.failed === 0 && totals.passed > 0 ? 0 : 1;
