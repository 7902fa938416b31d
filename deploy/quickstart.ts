/**
 * The second half of `deploy/quickstart`: a manager with its own etcd, an agent on the host, two more agents whose hosts
 * are network namespaces, and the demo service. Everything it makes carries the names below, so that `--down` finds all
 * of it again, also what a crash left behind.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { writeDemoImage } from "./demo/image.ts";

const ROOT = new URL("..", import.meta.url).pathname;
const STATE = "/var/lib/swarm-quickstart";
const SOCKET = "/run/swarm/manager.sock";
/** What the nodes join with. */
const JOIN_TOKEN = join(STATE, "join-token");
const BRIDGE = "swarm-quick";
const NETWORK = "10.199.199";
const MANAGER_ADDRESS = `${NETWORK}.1:2377`;
const PUBLISHED_PORT = 8080;

interface Host {
  readonly name: string;
  /** The network namespace that is this host; none for the machine itself. */
  readonly namespace?: string;
  readonly address: string;
}

const HOSTS: readonly Host[] = [
  { name: "node-1", address: `${NETWORK}.1` },
  { name: "node-2", namespace: "swarm-quick-2", address: `${NETWORK}.2` },
  { name: "node-3", namespace: "swarm-quick-3", address: `${NETWORK}.3` },
];

/** Something the user has to mend: shown without a stack. */
class SetupError extends Error {
  constructor(problem: string, mend: string) {
    super(`${problem}. Mend: ${mend}`);
  }
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function succeeds(program: string, ...args: readonly string[]): boolean {
  try {
    execFileSync(program, args, { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

function execute(program: string, ...args: readonly string[]): string {
  try {
    return execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], cwd: ROOT });
  } catch (error) {
    const stderr = error instanceof Error && "stderr" in error ? String(error.stderr).trim() : String(error);
    throw new SetupError(
      `${program} ${args.join(" ")}: ${stderr}`,
      `deploy/quickstart --down, then again; logs are in ${STATE}`,
    );
  }
}

function swarmctl(...args: readonly string[]): string {
  return execute(join(ROOT, "cli/swarmctl"), "--host", `unix://${SOCKET}`, ...args);
}

/** Runs swarmctl as a person would, its output on this terminal. */
function show(...args: readonly string[]): void {
  say(`\n$ swarmctl ${args.join(" ")}`);
  execFileSync(join(ROOT, "cli/swarmctl"), ["--host", `unix://${SOCKET}`, ...args], {
    stdio: ["ignore", "inherit", "inherit"],
  });
}

async function waitFor(what: string, check: () => boolean | Promise<boolean>, timeoutMs = 30_000): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs;
  while (!(await check())) {
    if (performance.now() > deadlineMs) {
      throw new SetupError(`${what}: not after ${timeoutMs / 1000} s`, `read the logs in ${STATE}/*.log`);
    }
    await pause(50);
  }
}

// ---- programs ---------------------------------------------------------------------------------------------------

interface Running {
  readonly pid: number;
  /** The process's start time, so that a recycled pid is not taken for it. */
  readonly startTime: string;
}

function startTimeOf(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.split(" ")[19];
  } catch {
    return undefined;
  }
}

function runningProgram(name: string): Running | undefined {
  try {
    const running: Running = JSON.parse(readFileSync(join(STATE, `${name}.pid`), "utf8"));
    return startTimeOf(running.pid) === running.startTime ? running : undefined;
  } catch {
    return undefined;
  }
}

/** Starts a program that outlives this one, its output in STATE/<name>.log. */
function startProgram(name: string, command: readonly string[]): ChildProcess {
  const [program = "", ...args] = command;
  const log = openSync(join(STATE, `${name}.log`), "a", 0o600);
  const child = spawn(program, args, { cwd: ROOT, detached: true, stdio: ["ignore", log, log] });
  closeSync(log);
  child.unref();
  const pid = child.pid ?? 0;
  writeFileSync(join(STATE, `${name}.pid`), JSON.stringify({ pid, startTime: startTimeOf(pid) ?? "" }));
  return child;
}

async function stopProgram(name: string): Promise<void> {
  const running = runningProgram(name);
  if (!running) return;
  process.kill(running.pid, "SIGTERM");
  const deadlineMs = performance.now() + 10_000;
  while (startTimeOf(running.pid) === running.startTime) {
    if (performance.now() > deadlineMs) {
      process.kill(running.pid, "SIGKILL");
      return;
    }
    await pause(20);
  }
}

function lastLines(name: string): string {
  const path = join(STATE, `${name}.log`);
  return existsSync(path) ? readFileSync(path, "utf8").trim().split("\n").slice(-5).join("\n") : "";
}

async function startManager(): Promise<void> {
  if (runningProgram("manager")) return;
  await requireFree(2377, `${NETWORK}.1`, "the manager's port for agents");
  // Root without any capability: the manager and its etcd need none.
  const command = ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"];
  const options = ["--data-dir", join(STATE, "manager"), "--socket", SOCKET, "--listen-addr", MANAGER_ADDRESS];
  const child = startProgram("manager", [...command, join(ROOT, "manager/swarm-manager"), ...options]);
  await waitFor("the manager answers", () => {
    if (child.exitCode !== null)
      throw new SetupError(`the manager ended:\n${lastLines("manager")}`, "see the lines above");
    return existsSync(SOCKET) && succeeds(join(ROOT, "cli/swarmctl"), "--host", `unix://${SOCKET}`, "info");
  });
}

function startAgent({ name, namespace }: Host): void {
  if (runningProgram(name)) return;
  const enter = namespace ? ["nsenter", `--net=/run/netns/${namespace}`] : [];
  const options = [
    "--manager",
    MANAGER_ADDRESS,
    "--join-token-file",
    JOIN_TOKEN,
    "--socket",
    namespace ? join(STATE, `${name}.sock`) : "/run/swarm/agent.sock",
    "--data-dir",
    join(STATE, name),
    "--hostname",
    name,
  ];
  startProgram(name, [...enter, join(ROOT, "agent/swarm-agent"), ...options]);
}

// ---- hosts ------------------------------------------------------------------------------------------------------

function makeHosts(): void {
  if (!existsSync(`/sys/class/net/${BRIDGE}`)) {
    execute("ip", "link", "add", BRIDGE, "type", "bridge");
    execute("ip", "address", "add", `${NETWORK}.1/24`, "dev", BRIDGE);
    execute("ip", "link", "set", BRIDGE, "up");
  }
  for (const { namespace, address } of HOSTS) {
    if (!namespace || existsSync(`/run/netns/${namespace}`)) continue;
    const link = `quick${address.split(".").at(-1)}`;
    execute("ip", "netns", "add", namespace);
    execute("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace);
    execute("ip", "link", "set", link, "master", BRIDGE, "up");
    execute("ip", "-n", namespace, "link", "set", "lo", "up");
    execute("ip", "-n", namespace, "address", "add", `${address}/24`, "dev", "eth0");
    execute("ip", "-n", namespace, "link", "set", "eth0", "up");
    execute("ip", "-n", namespace, "route", "add", "default", "via", `${NETWORK}.1`);
  }
  letHostsOut();
}

/** What leaves the namespaces for the world, an image's pull or a task's own, leaves as this machine's (agents forward). */
function letHostsOut(): void {
  if (succeeds("nft", "list", "table", "ip", BRIDGE)) return;
  const rule = `ip saddr ${NETWORK}.0/24 oifname != { "${BRIDGE}", "swarm0" } masquerade`;
  const chain = "chain outgoing { type nat hook postrouting priority srcnat;";
  execute("nft", `table ip ${BRIDGE} { ${chain} ${rule}; }; }`);
}

function removeHosts(): void {
  for (const { namespace, address } of HOSTS) {
    if (!namespace) continue;
    if (existsSync(`/run/netns/${namespace}`)) execute("ip", "netns", "delete", namespace);
    const link = `quick${address.split(".").at(-1)}`;
    if (existsSync(`/sys/class/net/${link}`)) succeeds("ip", "link", "delete", link);
  }
  if (existsSync(`/sys/class/net/${BRIDGE}`)) execute("ip", "link", "delete", BRIDGE);
  succeeds("nft", "delete", "table", "ip", BRIDGE);
}

async function requireFree(port: number, address: string, what: string): Promise<void> {
  const server = createServer();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  server.listen(port, address, resolve);
  try {
    await promise;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new SetupError(
      `port ${port} (${what}) cannot be used: ${reason}`,
      `end what listens there: ss -ltnp 'sport = :${port}'`,
    );
  } finally {
    server.close();
  }
}

// ---- up and down ------------------------------------------------------------------------------------------------

function services(): string[] {
  return swarmctl("service", "ls", "--format", "{{.Name}}").split("\n").filter(Boolean);
}

async function up(): Promise<void> {
  const beganMs = performance.now();
  mkdirSync(STATE, { recursive: true, mode: 0o700 });
  if (!runningProgram("manager")) await requireFree(PUBLISHED_PORT, "0.0.0.0", "the demo's");
  makeHosts();
  await startManager();
  writeFileSync(
    JOIN_TOKEN,
    execute(join(ROOT, "cli/swarmctl"), "--host", `unix://${SOCKET}`, "swarm", "join-token", "-q", "worker"),
    { mode: 0o600 },
  );
  for (const host of HOSTS) startAgent(host);
  const image = writeDemoImage(STATE, "1");
  await waitFor("three nodes are ready", () => {
    for (const { name } of HOSTS) {
      if (!runningProgram(name))
        throw new SetupError(`the agent of ${name} ended:\n${lastLines(name)}`, "see the lines above");
    }
    return (
      swarmctl("node", "ls", "--format", "{{.Status}}")
        .split("\n")
        .filter((status) => status === "Ready").length >= HOSTS.length
    );
  });
  show("image", "load", image);
  const isNew = !services().includes("web");
  if (isNew) {
    show("service", "create", "--name", "web", "--replicas", "3", "-p", `${PUBLISHED_PORT}:80`, "demo/web:1");
  }
  await showDemo(isNew);
  show("node", "ls");
  show("service", "ls");
  show("service", "ps", "web");
  say(`\nUp in ${((performance.now() - beganMs) / 1000).toFixed(1)} s. What to try next:`);
  say("  cli/swarmctl service scale web=10");
  say("  cli/swarmctl service logs web");
  say("  cli/swarmctl node update --availability drain node-2 && cli/swarmctl service ps web");
  say("  cli/swarmctl service update --force --update-parallelism 2 web");
  say(
    `  for address in ${HOSTS.map(({ address }) => address).join(" ")}; do curl http://$address:${PUBLISHED_PORT}; done`,
  );
  say("  deploy/quickstart --down");
}

/** A new demo runs on every node. After the user's own changes only some may answer, or none, which is no failure. */
async function showDemo(isNew: boolean): Promise<void> {
  let shown = "";
  const addresses = ["localhost", ...(isNew ? [] : HOSTS.map((host) => host.address))];
  const answers = async () => {
    for (const address of addresses) {
      const url = `http://${address}:${PUBLISHED_PORT}`;
      const body = await bodyOf(url);
      if (body === undefined) continue;
      shown = `\n$ curl ${url}\n${body}`;
      return true;
    }
    return false;
  };
  try {
    await waitFor(`port ${PUBLISHED_PORT} of ${addresses.join(" or ")} answers`, answers, isNew ? 30_000 : 5_000);
  } catch (error) {
    if (isNew) throw error;
    shown = `\nNothing answers on port ${PUBLISHED_PORT}: the service web is no longer the demo's.\n`;
  }
  process.stdout.write(shown);
}

async function bodyOf(url: string): Promise<string | undefined> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(2_000) });
    return response.ok ? await response.text() : undefined;
  } catch {
    return undefined;
  }
}

async function down(): Promise<void> {
  if (!existsSync(STATE)) {
    removeHosts();
    say("nothing to remove");
    return;
  }
  for (const { name } of HOSTS) await stopProgram(name);
  // Each agent's own way out: ends its containers and removes its cgroups, links, rules and files.
  for (const { name, namespace } of HOSTS) {
    if (!existsSync(join(STATE, name)) || (namespace && !existsSync(`/run/netns/${namespace}`))) continue;
    const enter = namespace ? ["nsenter", `--net=/run/netns/${namespace}`] : [];
    const [program = "", ...args] = [
      ...enter,
      join(ROOT, "agent/swarm-agent"),
      "--purge",
      "--data-dir",
      join(STATE, name),
    ];
    execute(program, ...args);
  }
  await stopProgram("manager");
  removeHosts();
  rmSync(STATE, { recursive: true, force: true });
  if (existsSync("/run/swarm") && readdirSync("/run/swarm").length === 0) rmSync("/run/swarm", { recursive: true });
  say("removed: processes, containers, namespaces, links, rules, cgroups and files");
}

try {
  await (process.argv.includes("--down") ? down() : up());
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  process.stderr.write(`quickstart: ${error.message}\n`);
  process.exitCode = 1;
}
