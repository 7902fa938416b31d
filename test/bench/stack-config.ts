/** `stack config` of 200 services, the whole process as a user starts it, beside `docker stack config` where docker is: both run in turn. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Figure } from "./figure.ts";
import { percentiles, timed } from "./measure.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
const SERVICES = 200;
const RUNS = 21;
const GOAL_MS = 300;

/** A service as teams have them: 16 lines, with a variable, mounts, a check and limits. */
function serviceLines(index: number): string {
  return `  svc${index}:
    image: registry.example.com/team/app-${index}:1.4.${index}
    command: ["serve", "--port", "8080", "--name", "svc${index}"]
    environment:
      NAME: svc${index}
      PEER: svc${(index + 1) % SERVICES}
      LEVEL: \${LEVEL:-info}
      TIMEOUT: "30"
    labels: {team: a, tier: "front"}
    ports: ["${10_000 + index}:8080"]
    volumes: ["data${index}:/data", "./conf:/etc/app:ro"]
    healthcheck: {test: ["CMD", "true"], interval: 30s, timeout: 5s, retries: 3}
    deploy:
      replicas: 2
      update_config: {parallelism: 1, delay: 5s, order: start-first}
      resources: {limits: {cpus: "0.5", memory: 128M}, reservations: {memory: 64M}}
      placement: {constraints: ["node.role == worker"]}
`;
}

function stackText(): string {
  const all = Array.from({ length: SERVICES }, (_, index) => index);
  const volumes = all.map((index) => `  data${index}: {}\n`).join("");
  return `services:\n${all.map(serviceLines).join("")}volumes:\n${volumes}`;
}

function run(program: string, args: readonly string[]): Promise<number> {
  return timed(async () => execFileSync(program, args, { stdio: ["ignore", "ignore", "ignore"] }));
}

/** Runs it, and docker's where there is one. */
export async function measureStackConfig(): Promise<Figure[]> {
  const directory = mkdtempSync(join(tmpdir(), "swarm-bench-"));
  try {
    const file = join(directory, "stack.yml");
    writeFileSync(file, stackText());
    const args = ["stack", "config", "-c", file];
    const ours: number[] = [];
    const theirs: number[] = [];
    for (let round = 0; round < RUNS; round++) {
      ours.push(await run(join(ROOT, "cli/swarmctl"), args));
      if (theirs.length === round) {
        const peerMs = await run("docker", args).catch(() => undefined);
        if (peerMs !== undefined) theirs.push(peerMs);
      }
    }
    const peer = theirs.length === 0 ? {} : { peer: percentiles(theirs).p50 };
    const name = `stack config of ${SERVICES} services, whole process`;
    return [
      { name: `${name}, p50`, value: percentiles(ours).p50, unit: "ms", goal: GOAL_MS, ...peer },
      { name: `${name}, best`, value: Math.min(...ours), unit: "ms" },
    ];
  } finally {
    rmSync(directory, { recursive: true });
  }
}
