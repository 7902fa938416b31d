/**
 * The resolver of an agent, asked by dnsperf: as fast as it answers, and at the rate of the goal, where each answer's time counts. It
 * is a process of its own (this file once more), with the flags that agents are started with.
 */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { DnsServer } from "../../agent/dns/dns-server.ts";
import { ServiceNames } from "../../agent/dns/names.ts";
import { systemClock } from "../../common/base/clock.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { systemRandom } from "../../common/base/random.ts";
import type { Figure } from "./figure.ts";
import { percentiles } from "./measure.ts";

const execute = promisify(execFile);

const NAMES = 1_000;
/** Questions in a second that it must at least answer. */
const RATE = 20_000;
/** At these an answer's time is measured: a node's tasks with much to ask, and the most. */
const RATES = [1_000, RATE];
const SECONDS = 5;

export async function measureNames(directory: string): Promise<readonly Figure[]> {
  const questions = join(directory, "questions");
  await writeFile(questions, Array.from({ length: NAMES }, (_, index) => `service-${index} A`).join("\n"));
  const child = spawn(process.execPath, [...agentFlags(), new URL(import.meta.url).pathname], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  try {
    const [port] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
    const load = ["-d", questions, "-s", "127.0.0.1", "-p", port, "-l", String(SECONDS), "-c", "8", "-q", "64"];
    const ask = async (...more: readonly string[]) =>
      (await execute("dnsperf", [...load, ...more], { maxBuffer: 64 << 20 })).stdout;
    const rate = Number(/Queries per second:\s+([\d.]+)/.exec(await ask())?.[1]);
    const figures: Figure[] = [{ name: "names: one answer of many", value: 1e6 / rate, unit: "µs", goal: 1e6 / RATE }];
    for (const each of RATES) {
      const answers = (await ask("-Q", String(each), "-v")).matchAll(/^> NOERROR .* ([\d.]+)$/gm);
      const { p99 } = percentiles([...answers].map(([, seconds]) => Number(seconds) * 1_000));
      figures.push({ name: `names: an answer at ${each} a second, p99`, value: p99, unit: "ms", goal: 1 });
    }
    return figures;
  } finally {
    const ended = once(child, "exit");
    child.stdin.end();
    await ended;
  }
}

/** What agent/swarm-agent hands to Node. */
function agentFlags(): readonly string[] {
  const script = readFileSync(new URL("../../agent/swarm-agent", import.meta.url), "utf8");
  return /^flags='(.*)'$/m.exec(script)?.[1]?.split(" ") ?? [];
}

async function serve(): Promise<void> {
  const world = { clock: systemClock, random: systemRandom, logger: silentLogger };
  await using server = await DnsServer.open({ ...world, address: "127.0.0.1", listenPort: 0, servers: () => [] });
  const services = Array.from({ length: NAMES }, (_, index) => ({
    ...{ serviceId: `s${index}`, name: `service-${index}` },
    networks: [{ networkId: "n", addresses: [`10.1.${index >> 8}.${index & 255}`], aliases: [] }],
  }));
  const clients = [{ addresses: ["127.0.0.1"], networkIds: ["n"], forwards: true, servers: [] }];
  server.setNames(new ServiceNames({ networks: [{ networkId: "n", name: "net" }], services, tasks: [], clients }));
  process.stdout.write(`${server.port}\n`);
  process.stdin.resume();
  await once(process.stdin, "end");
}

if (process.argv[1] === new URL(import.meta.url).pathname) await serve();
