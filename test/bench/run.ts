/**
 * Prints every figure that the project keeps an eye on, beside its goal: `npm run bench [-- --peer] [-- --long] [-- --only NAME]`.
 * A missed goal is not an error: machines differ, and a benchmark that fails by chance is soon ignored.
 */

import { readFileSync } from "node:fs";
import { loadavg, release } from "node:os";
import { parseArgs } from "node:util";
import { measureAgents } from "./agents.ts";
import { measureCluster } from "./cluster.ts";
import { measureContainerStart } from "./container-start.ts";
import { installDocker } from "./docker-engine.ts";
import { type BenchOptions, type Figure, formatFigure, HEADING } from "./figure.ts";
import { measureNetwork } from "./network.ts";
import { measurePki } from "./pki.ts";
import { measureScheduler } from "./scheduler.ts";
import { measureStackConfig } from "./stack-config.ts";
import { measureStackDeploy } from "./stack-deploy.ts";
import { measureStore } from "./store.ts";

/** What can be measured, in the order of the table. */
const SUITES: Readonly<Record<string, (options: BenchOptions) => Promise<readonly Figure[]>>> = {
  scheduler: measureScheduler,
  store: measureStore,
  pki: measurePki,
  agents: measureAgents,
  "stack-config": measureStackConfig,
  container: measureContainerStart,
  network: measureNetwork,
  cluster: measureCluster,
  stack: measureStackDeploy,
};

const USAGE = `usage: npm run bench [-- --peer] [-- --long] [-- --only NAME,…]
  --peer       also measure Docker (Debian's docker.io, installed when missing), for the ratios
  --long       also 2,500 containers on one host (cluster)
  --only NAME  one or more of ${Object.keys(SUITES).join(", ")}
`;

async function main(): Promise<number> {
  let options: BenchOptions & { readonly only: readonly string[] };
  try {
    const flag = { type: "boolean", default: false } as const;
    const { values } = parseArgs({ options: { peer: flag, long: flag, only: { type: "string", multiple: true } } });
    const only = values.only?.flatMap((names) => names.split(",")) ?? [];
    options = { peer: values.peer, long: values.long, only };
  } catch (error) {
    return usage(error instanceof Error ? error.message : String(error));
  }
  const unknown = options.only.find((name) => !Object.hasOwn(SUITES, name));
  if (unknown !== undefined) return usage(`nothing is called ${unknown}`);
  if (options.peer) installDocker();
  process.stdout.write(`${machine()}\n${HEADING}\n`);
  let failed = 0;
  for (const [name, measure] of Object.entries(SUITES)) {
    if (options.only.length > 0 && !options.only.includes(name)) continue;
    try {
      for (const figure of await measure(options)) process.stdout.write(`${formatFigure(figure)}\n`);
    } catch (error) {
      failed++;
      process.stdout.write(`${name}: failed\n`);
      process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    }
  }
  return failed === 0 ? 0 : 1;
}

/** Figures mean nothing without it. A load above zero says that others used the machine too. */
function machine(): string {
  const cpus = readFileSync("/proc/cpuinfo", "utf8")
    .split("\n")
    .filter((line) => line.startsWith("model name"));
  const memoryGib = Number(/MemTotal:\s+(\d+)/.exec(readFileSync("/proc/meminfo", "utf8"))?.[1] ?? 0) / 1024 / 1024;
  const model = cpus[0]?.split(": ")[1] ?? process.arch;
  const load = loadavg()[0]?.toFixed(1);
  return `${cpus.length} × ${model}, ${memoryGib.toFixed(0)} GiB, Linux ${release()}, Node ${process.versions.node}, load ${load}`;
}

function usage(problem: string): number {
  process.stderr.write(`${problem}\n${USAGE}`);
  return 2;
}

process.exit(await main());
