/**
 * A thousand agents that come back to one manager at once, each over mutual TLS with a certificate of its own: how long until all have
 * their sessions, who was called DOWN meanwhile, and what it costs. The manager is the real program with its etcd; the agents
 * (`agents-clients.ts`) are the real Agent with nothing to run, in a few processes.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ManagerProgram, startManagerProgram } from "../manager-program.ts";
import type { Figure } from "./figure.ts";
import { residentMb, until } from "./measure.ts";

const AGENTS = 1_000;
const PROCESSES = 4;
const SETTLED_MS_MAX = 300_000;
/** Keys and certificates are made before the measuring begins: on two busy cores that takes minutes. */
const JOINED_MS_MAX = 900_000;
/** Connections that are made and closed, to see what one costs the manager. */
const CONNECTIONS = 500;
/** The kernel counts processor time in these (sysconf(_SC_CLK_TCK)). */
const TICK_MS = 10;

export async function measureAgents(): Promise<readonly Figure[]> {
  const folder = mkdtempSync(join(tmpdir(), "bench-agents-"));
  const clients: ChildProcess[] = [];
  let manager = await startManagerProgram(folder, "m");
  try {
    const { address } = manager;
    const { worker: token } = await manager.call((control) => control.getJoinTokens({}));
    const startClients = (task: Readonly<Record<string, unknown>>) => {
      const client = runClients({ address, token, folder, ...task });
      clients.push(client);
      return client;
    };
    for (let number = 0; number < PROCESSES; number++) startClients({ count: AGENTS / PROCESSES, number });
    await untilSessions(manager, AGENTS, JOINED_MS_MAX);

    // As after a crash: nobody was told.
    const ended = once(manager.child, "exit");
    manager.child.kill("SIGKILL");
    await ended;
    const startedMs = performance.now();
    manager = await startManagerProgram(folder, "m", {}, address);
    const again = manager;
    const [readyCpuMs, clientsCpuMs] = [cpuMs(again.child), sum(clients.map(cpuMs))];
    await untilSessions(again, AGENTS, SETTLED_MS_MAX);
    const settledMs = performance.now() - startedMs;
    const eachMs = (cpuMs(again.child) - readyCpuMs) / AGENTS;
    const eachAgentMs = (sum(clients.map(cpuMs)) - clientsCpuMs) / AGENTS;
    const downs = said(again, "node is down");
    if (downs > 0) throw new Error(`${downs} nodes were called DOWN that were there`);
    const residentMbThen = residentMb(again.child.pid ?? 0);

    // A beat a second of each goes on all the while: what a second costs without connections is taken off.
    const beating = () => new Promise((resolve) => setTimeout(resolve, 5_000));
    const [idle, idleAgents] = await Promise.all([cpuShare([again.child], beating), cpuShare(clients, beating)]);
    const connections = () => once(startClients({ count: CONNECTIONS, only: "connections" }), "exit");
    const busy = await cpuShare([again.child], connections);
    const connectionMs = (busy.cpuMs - (idle.cpuMs / idle.ms) * busy.ms) / CONNECTIONS;
    return [
      { name: `agents: ${AGENTS} reconnect, until all have sessions`, value: settledMs, unit: "ms", goal: 20_000 },
      { name: "agents: one that reconnects, manager's CPU", value: eachMs, unit: "ms" },
      { name: "agents: the same, the agent's CPU", value: eachAgentMs, unit: "ms" },
      { name: "agents: a connection at the managers' port, its CPU", value: connectionMs, unit: "ms", goal: 3 },
      { name: `agents: ${AGENTS} that beat, manager's CPU in a second`, value: perSecond(idle), unit: "ms" },
      { name: "agents: the same, CPU of all agents", value: perSecond(idleAgents), unit: "ms" },
      { name: `agents: manager with ${AGENTS} of them, RSS`, value: residentMbThen, unit: "MB" },
    ];
  } finally {
    await Promise.all(clients.map(end));
    await manager.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

function runClients(task: Readonly<Record<string, unknown>>): ChildProcess {
  const script = new URL("agents-clients.ts", import.meta.url).pathname;
  const child = spawn(process.execPath, [script], { stdio: ["pipe", "ignore", "inherit"] });
  child.stdin.end(JSON.stringify(task));
  return child;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGKILL");
  await ended;
}

/** How many lines of its log say `message`. */
function said({ text }: ManagerProgram, message: string): number {
  return text.filter((line) => line.includes(`"msg":"${message}"`)).length;
}

/** Waits until so many nodes have opened a session. Each line is looked at once: the processor is needed by what is measured. */
async function untilSessions({ text }: ManagerProgram, count: number, timeoutMs: number): Promise<void> {
  const nodes = new Set<string | undefined>();
  let seen = 0;
  await until(async () => {
    for (; seen < text.length; seen++) {
      const line = text[seen] ?? "";
      if (line.includes('"msg":"session opened"')) nodes.add(/"nodeId":"([a-z0-9]+)"/.exec(line)?.[1]);
    }
    return nodes.size === count;
  }, timeoutMs);
}

interface Share {
  readonly cpuMs: number;
  readonly ms: number;
}

async function cpuShare(processes: readonly ChildProcess[], work: () => Promise<unknown>): Promise<Share> {
  const [beganMs, beganCpuMs] = [performance.now(), sum(processes.map(cpuMs))];
  await work();
  return { cpuMs: sum(processes.map(cpuMs)) - beganCpuMs, ms: performance.now() - beganMs };
}

function perSecond({ cpuMs: used, ms }: Share): number {
  return (used / ms) * 1_000;
}

function sum(values: readonly number[]): number {
  return values.reduce((left, right) => left + right, 0);
}

/** Processor time of a process so far: fields 14 and 15 of /proc/<pid>/stat. */
function cpuMs({ pid }: ChildProcess): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}
