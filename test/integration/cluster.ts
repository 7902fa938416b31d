/**
 * A real cluster for tests: managers, agents and their hosts, each a network namespace on a bridge in a namespace of its
 * own, so that nothing of the machine's network is touched and clusters do not meet. Everything is made with a random
 * name and removed again by `await using`.
 */
import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect } from "vitest";
import { eventually } from "../eventually.ts";
import { shiftedClock } from "../shifted-clock.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
const execute = promisify(execFile);
const LOG = ["--log-format", "json", "--log-level", "debug"];

/** What a program answered. */
export interface Answer {
  readonly stdout: string;
  readonly stderr: string;
  readonly code: number;
}

/** A host: a network namespace with one address on the cluster's bridge. */
export interface Host {
  readonly name: string;
  readonly namespace: string;
  readonly address: string;
  readonly link: string;
}

/** A program of ours that runs. */
export interface Program {
  readonly name: string;
  readonly process: ChildProcess;
  readonly logPath: string;
}

export interface ClusterOptions {
  /** Agents, each on its own host. Default 3. */
  readonly nodes?: number;
  /** Managers over one etcd. Default 1, which starts its own. */
  readonly managers?: number;
  /** Whether the etcd of several managers is on a host of its own, `store`. Default: on theirs. */
  readonly etcdApart?: boolean;
  readonly managerArgs?: readonly string[];
  readonly agentArgs?: readonly string[];
  /** By how much the clocks of the programs differ from the machine's, as `shiftedClock` takes it. Default: not at all. */
  readonly clock?: string;
}

function run(program: string, ...args: readonly string[]): string {
  return execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

export class TestCluster implements AsyncDisposable {
  /** Everything the cluster writes lies below. */
  readonly directory = mkdtempSync(join(tmpdir(), "swarm-cluster-"));
  readonly #tag = Math.random().toString(36).slice(2, 7);
  /** The namespace of the bridge, the managers and the clients. */
  readonly fabric: Host;
  readonly hosts: Host[] = [];
  readonly managers: Program[] = [];
  readonly agents = new Map<string, Program>();
  readonly #options: ClusterOptions;
  #etcdUrl: string | undefined;

  private constructor(options: ClusterOptions) {
    this.#options = options;
    this.fabric = { name: "fabric", namespace: `sw${this.#tag}-0`, address: "10.198.0.1", link: "fabric" };
  }

  /** Makes the hosts, starts managers and agents, and waits until every node is ready. */
  static async start(options: ClusterOptions = {}): Promise<TestCluster> {
    const cluster = new TestCluster(options);
    try {
      cluster.#makeFabric();
      for (let number = 0; number < (options.managers ?? 1); number++)
        await cluster.startManager(number, options.clock);
      if (cluster.managers.length > 0) await cluster.#writeJoinToken();
      for (let number = 1; number <= (options.nodes ?? 3); number++)
        cluster.startAgent(cluster.addHost(`node-${number}`), options.clock);
      if (cluster.managers.length > 0) await cluster.nodesReady(options.nodes ?? 3);
      return cluster;
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** What agents join with. */
  async #writeJoinToken(): Promise<void> {
    const token = await this.swarmctl("swarm", "join-token", "-q", "worker");
    writeFileSync(join(this.directory, "join-token"), token, { mode: 0o600 });
  }

  #makeFabric(): void {
    const { namespace, link, address } = this.fabric;
    run("ip", "netns", "add", namespace);
    run("ip", "-n", namespace, "link", "set", "lo", "up");
    run("ip", "-n", namespace, "link", "add", link, "type", "bridge");
    run("ip", "-n", namespace, "address", "add", `${address}/24`, "dev", link);
    run("ip", "-n", namespace, "link", "set", link, "up");
  }

  /** Makes one more host and joins it to the bridge. */
  addHost(name: string): Host {
    const number = this.hosts.length + 2;
    const host = { name, namespace: `sw${this.#tag}-${number}`, address: `10.198.0.${number}`, link: `h${number}` };
    run("ip", "netns", "add", host.namespace);
    run(
      "ip",
      "-n",
      this.fabric.namespace,
      "link",
      "add",
      host.link,
      "type",
      "veth",
      "peer",
      "name",
      "eth0",
      "netns",
      host.namespace,
    );
    run("ip", "-n", this.fabric.namespace, "link", "set", host.link, "master", this.fabric.link, "up");
    run("ip", "-n", host.namespace, "link", "set", "lo", "up");
    run("ip", "-n", host.namespace, "address", "add", `${host.address}/24`, "dev", "eth0");
    run("ip", "-n", host.namespace, "link", "set", "eth0", "up");
    run("ip", "-n", host.namespace, "route", "add", "default", "via", this.fabric.address);
    this.hosts.push(host);
    return host;
  }

  /** Cuts a host off from all others, or joins it again. */
  setLink(host: Host, state: "up" | "down"): void {
    run("ip", "-n", this.fabric.namespace, "link", "set", host.link, state);
  }

  /** Starts any other program on a host; it ends with the cluster. */
  startProgram(name: string, host: Host, ...command: readonly string[]): Program {
    const program = this.#start(name, host, command);
    this.#programs.push(program);
    return program;
  }

  /** Starts a program on a host, its log in the cluster's directory. */
  #start(name: string, host: Host, command: readonly string[]): Program {
    const logPath = join(this.directory, `${name}.log`);
    const log = openSync(logPath, "a");
    const child = spawn("nsenter", [`--net=/run/netns/${host.namespace}`, ...command], {
      stdio: ["ignore", log, log],
      cwd: ROOT,
    });
    closeSync(log);
    return { name, process: child, logPath };
  }

  socket(number = 0): string {
    return join(this.directory, `manager-${number}.sock`);
  }

  /** The address at which agents reach a manager. */
  managerAddress(number = 0): string {
    return `${this.fabric.address}:${2377 + number}`;
  }

  async startManager(number: number, clock?: string): Promise<Program> {
    const args = ["--data-dir", join(this.directory, `manager-${number}`), "--socket", this.socket(number)];
    args.push("--listen-addr", this.managerAddress(number), "--log-format", "json", "--log-level", "debug");
    if ((this.#options.managers ?? 1) > 1) {
      args.push("--etcd", this.startEtcd(), "--cluster-key-file", join(this.directory, "cluster.key"));
    }
    const program = this.#start(`manager-${number}`, this.fabric, [
      ...shiftedClock(clock),
      join(ROOT, "manager/swarm-manager"),
      ...args,
      ...(this.#options.managerArgs ?? []),
    ]);
    this.managers[number] = program;
    await eventually(() => {
      if (program.process.exitCode !== null) throw new Error(`manager ended: ${this.log(program)}`);
      expect(existsSync(this.socket(number))).toBe(true);
    });
    await eventually(async () => expect((await this.swarmctlAt(number, "info")).stderr).toBe(""));
    return program;
  }

  /** An etcd that is nobody's of the cluster, once; answers its URL. */
  startEtcd(): string {
    if (this.#etcdUrl !== undefined) return this.#etcdUrl;
    const host = this.#options.etcdApart === true ? this.addHost("store") : this.fabric;
    const url = `http://${host.address}:2379`;
    const peer = `http://${host.address}:2380`;
    const args = ["--data-dir", join(this.directory, "etcd"), "--log-level", "error"];
    args.push("--listen-client-urls", url, "--advertise-client-urls", url);
    args.push("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer);
    args.push("--initial-cluster", `default=${peer}`);
    this.startProgram("etcd", host, "etcd", ...args);
    this.#etcdUrl = url;
    return url;
  }

  readonly #programs: Program[] = [];

  startAgent(host: Host, clock?: string): Program {
    const managers = this.managers.map((_, number) => this.managerAddress(number)).join(",");
    const args = [
      "--manager",
      managers,
      "--join-token-file",
      join(this.directory, "join-token"),
      "--data-dir",
      join(this.directory, host.name),
      "--hostname",
      host.name,
      "--socket",
      join(this.directory, `${host.name}.sock`),
    ];
    args.push("--insecure-registry", `${this.fabric.address}:5000`, "--log-format", "json", "--log-level", "debug");
    const program = this.#start(host.name, host, [
      ...shiftedClock(clock),
      join(ROOT, "agent/swarm-agent"),
      ...args,
      ...(this.#options.agentArgs ?? []),
    ]);
    this.agents.set(host.name, program);
    return program;
  }

  /** Starts both programs on a host, in no cluster yet. Answers what swarmctl says on that host. */
  async startIdle(host: Host): Promise<(...args: readonly string[]) => Promise<Answer>> {
    const folder = this.folder(host.name);
    this.restartManager(host.name);
    this.restartAgent(host.name);
    await eventually(() => {
      for (const socket of ["m.sock", "a.sock"]) expect(existsSync(`${folder}/${socket}`)).toBe(true);
    });
    return this.#swarmctlOn(host);
  }

  /** swarmctl on a host of `startIdle`. */
  #swarmctlOn(host: Host): (...args: readonly string[]) => Promise<Answer> {
    const folder = this.folder(host.name);
    const sockets = ["--manager-socket", `${folder}/m.sock`, "--agent-socket", `${folder}/a.sock`];
    return (...args) => {
      const local = args[0] === "swarm" && ["init", "join", "leave", "unlock"].includes(args[1] ?? "");
      const words = local ? [...args.slice(0, 2), ...sockets, ...args.slice(2)] : args;
      return this.execOn(host, join(ROOT, "cli/swarmctl"), "--host", `unix://${folder}/m.sock`, ...words);
    };
  }

  /** swarmctl on a host of `startIdle`, with something on its standard input. Throws what it says when it fails. */
  async pipeTo(name: string, input: string, ...args: readonly string[]): Promise<void> {
    const folder = this.folder(name);
    const words = [...args, "--manager-socket", `${folder}/m.sock`];
    const command = ["sh", "-c", 'printf %s "$0" | "$@"', input, join(ROOT, "cli/swarmctl"), ...words];
    const [program = "sh", ...rest] = command;
    const { code, stderr } = await this.execOn(this.host(name), program, ...rest);
    if (code !== 0) throw new Error(stderr.trim());
  }

  /** Starts the manager of `startIdle` again, where it was. `root`: of another build of the programs. */
  restartManager(name: string, root = ROOT): void {
    const folder = this.folder(name);
    const old = this.#programs.findIndex((each) => each.name === `${name}-manager`);
    if (old >= 0) this.#programs.splice(old, 1);
    const places = ["--data-dir", `${folder}/manager`, "--socket", `${folder}/m.sock`, "--hostname", name];
    const command = [join(root, "manager/swarm-manager"), ...places, ...LOG];
    this.#programs.push(this.#start(`${name}-manager`, this.host(name), command));
  }

  /** The same of its agent. */
  restartAgent(name: string, root = ROOT): void {
    const folder = this.folder(name);
    const places = ["--data-dir", `${folder}/agent`, "--socket", `${folder}/a.sock`, "--hostname", name];
    const command = [join(root, "agent/swarm-agent"), ...places, "--manager-socket", `${folder}/m.sock`, ...LOG];
    this.agents.set(name, this.#start(name, this.host(name), command));
  }

  /** A program that `startProgram` started. */
  program(name: string): Program {
    const program = this.#programs.find((each) => each.name === name);
    if (!program) throw new Error(`no program ${name}`);
    return program;
  }

  host(name: string): Host {
    const host = this.hosts.find((each) => each.name === name);
    if (!host) throw new Error(`no host ${name}`);
    return host;
  }

  agent(name: string): Program {
    const agent = this.agents.get(name);
    if (!agent) throw new Error(`no agent ${name}`);
    return agent;
  }

  /** Ends a program with a signal and waits until it is gone. */
  async end(program: Program, signal: NodeJS.Signals): Promise<void> {
    if (program.process.exitCode !== null || program.process.signalCode !== null) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    program.process.once("exit", () => resolve());
    program.process.kill(signal);
    await promise;
  }

  log({ logPath }: Program): string {
    return readFileSync(logPath, "utf8");
  }

  /** Runs swarmctl against a manager; never throws. */
  async swarmctlAt(number: number, ...args: readonly string[]): Promise<Answer> {
    return await this.exec(join(ROOT, "cli/swarmctl"), "--host", `unix://${this.socket(number)}`, ...args);
  }

  /** Runs swarmctl against a living manager and returns its stdout; fails the test when it refuses. */
  async swarmctl(...args: readonly string[]): Promise<string> {
    const alive = this.managers.findIndex(({ process }) => process.exitCode === null && process.signalCode === null);
    const { stdout, stderr, code } = await this.swarmctlAt(Math.max(0, alive), ...args);
    if (code !== 0)
      throw new Error(`swarmctl ${args.join(" ")}: exit ${code}: ${stderr}${stdout}${this.#deadManagers()}`);
    return stdout;
  }

  /** The last words of managers that ended: one that nobody ended is what a test fails of. */
  #deadManagers(): string {
    const dead = this.managers.filter(({ process }) => process.exitCode !== null || process.signalCode !== null);
    return dead
      .map((manager) => {
        const { exitCode, signalCode } = manager.process;
        return `\n${manager.name} ended with ${exitCode ?? signalCode}: ${this.log(manager).slice(-2_000)}`;
      })
      .join("");
  }

  /** Runs a program in the fabric, where the clients are. */
  async exec(program: string, ...args: readonly string[]): Promise<Answer> {
    return await this.execOn(this.fabric, program, ...args);
  }

  async execOn(host: Host, program: string, ...args: readonly string[]): Promise<Answer> {
    try {
      const command = [`--net=/run/netns/${host.namespace}`, program, ...args];
      const { stdout, stderr } = await execute("nsenter", command, { timeout: 120_000, maxBuffer: 64 * 1024 * 1024 });
      return { stdout, stderr, code: 0 };
    } catch (error) {
      const failed = error as {
        readonly stdout?: string;
        readonly stderr?: string;
        readonly code?: number | string;
        readonly message: string;
      };
      return {
        stdout: failed.stdout ?? "",
        stderr: failed.stderr || failed.message,
        code: typeof failed.code === "number" ? failed.code : -1,
      };
    }
  }

  /** Fetches a URL from the fabric with curl; rejects on any failure. */
  async fetch(url: string): Promise<string> {
    const { stdout, stderr, code } = await this.exec(
      "curl",
      "--silent",
      "--show-error",
      "--fail",
      "--max-time",
      "3",
      url,
    );
    if (code !== 0) throw new Error(`${url}: ${stderr}`);
    return stdout;
  }

  async nodesReady(count: number): Promise<void> {
    await eventually(
      async () => {
        for (const agent of this.agents.values()) {
          if (agent.process.exitCode !== null) throw new Error(`${agent.name} ended: ${this.log(agent).slice(-2_000)}`);
        }
        const statuses = (await this.swarmctl("node", "ls", "--format", "{{.Status}}"))
          .split("\n")
          .filter((line) => line === "Ready");
        expect(statuses).toHaveLength(count);
      },
      { timeoutMs: 30_000, intervalMs: 100 },
    );
  }

  /** "web.1 node-2 Running" for each task of a service that should run, in order of name. */
  async tasks(service: string): Promise<string[]> {
    const format = "{{.Name}} {{.Node}} {{.CurrentState}}";
    const output = await this.swarmctl(
      "service",
      "ps",
      service,
      "--filter",
      "desired-state=running",
      "--format",
      format,
    );
    return output
      .split("\n")
      .filter(Boolean)
      .map((line) => line.split(" ").slice(0, 3).join(" "))
      .sort();
  }

  /** The first process of each running container of a node: "pid start-time command", so that a restarted one differs. */
  async containers(node: string): Promise<string[]> {
    const ids = await this.swarmctl("node", "ps", node, "--no-trunc", "--format", "{{.ID}}");
    const own = new Set(ids.split("\n").filter(Boolean));
    return readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .flatMap((pid) => containerLine(pid, own))
      .sort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const agent of this.agents.values()) await this.end(agent, "SIGTERM");
    for (const host of this.hosts) {
      const idle = join(this.directory, host.name, "agent");
      const directory = existsSync(idle) ? idle : join(this.directory, host.name);
      if (!existsSync(directory)) continue;
      await this.execOn(host, join(ROOT, "agent/swarm-agent"), "--purge", "--data-dir", directory);
    }
    for (const manager of this.managers) await this.end(manager, "SIGTERM");
    for (const program of this.#programs) await this.end(program, "SIGTERM");
    for (const { namespace } of [...this.hosts, this.fabric]) {
      if (existsSync(`/run/netns/${namespace}`)) run("ip", "netns", "delete", namespace);
    }
    if (process.env.SWARM_TEST_KEEP === undefined) rmSync(this.directory, { recursive: true, force: true });
  }

  /** A directory for the test's own files. */
  folder(name: string): string {
    const path = join(this.directory, name);
    mkdirSync(path, { recursive: true });
    return path;
  }
}

/** What `containers` tells of a process that is the first one of a container of one of the tasks. */
function containerLine(pid: string, taskIds: ReadonlySet<string>): string[] {
  try {
    const read = (file: string) => readFileSync(`/proc/${pid}/${file}`, "utf8");
    const name =
      read("environ")
        .split("\0")
        .find((each) => each.startsWith("SWARM_TASK_NAME=")) ?? "";
    if (!taskIds.has(name.split(".").at(-1) ?? "") || !/^NSpid:\s+\d+\s+1$/m.test(read("status"))) return [];
    const startTime = read("stat").split(") ").at(-1)?.split(" ")[19];
    return [`${pid} ${startTime} ${read("cmdline").replaceAll("\0", " ").trim()}`];
  } catch {
    return [];
  }
}
