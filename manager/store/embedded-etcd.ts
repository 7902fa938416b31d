import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { chmod, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { createConnection } from "node:net";
import { delimiter, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { type Clock, withTimeout } from "../../common/base/clock.ts";
import { errnoOf, SwarmError } from "../../common/base/error.ts";
import type { Logger } from "../../common/base/logger.ts";
import type { Random } from "../../common/base/random.ts";
import { EtcdKv } from "./etcd-kv.ts";

export interface EmbeddedEtcdOptions {
  /** The directory that is etcd's alone; made with mode 0700. */
  readonly directory: string;
  /**
   * A loopback port for clients, so that other managers of this host can join. Default: none, a unix socket in the
   * directory, which only its owner can reach (a loopback port without certificates is open to every local user).
   */
  readonly clientPort?: number;
  /** Its place among other managers' etcds. Default: none, it stays alone, and other hosts cannot reach it. */
  readonly peer?: EtcdPeer;
  /** Size at which etcd refuses writes. Default 4 GiB: a million tasks need about 1 GiB with an hour of history. */
  readonly quotaBytes?: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

/** A member of an etcd that several managers make together. */
export interface EtcdPeer {
  /** Unique among the members. */
  readonly name: string;
  /** "host:port" to listen on, and where the others reach it. */
  readonly listen: string;
  readonly advertise: string;
  /** As etcd's --initial-cluster: "name=https://host:port,…", this member included. Counts at the first start only. */
  readonly initialCluster: string;
  /** Whether it joins members that exist. */
  readonly joins: boolean;
  /** Holds key.pem, certificate.pem and trust.pem (common/pki/credential-files.ts); etcd reads the first two at each handshake. */
  readonly credentials: string;
  /** Goes on alone from the data of a member whose others are lost. */
  readonly forceNewCluster?: boolean;
}

/** What etcd calls a peer's address. */
export function peerUrl(address: string): string {
  return `https://${address}`;
}

/** Who runs etcd on a directory: both named by pid and start time, since pids are used again. */
interface Owner {
  readonly etcd: ProcessIdentity;
  readonly manager: ProcessIdentity;
}

interface ProcessIdentity {
  readonly pid: number;
  /** Field 22 of /proc/<pid>/stat; empty for a process that has ended. */
  readonly startTime: string;
}

/** From the start to the first answer; etcd needs about half a second, a large database longer. */
const START_TIMEOUT_MS = 30_000;
/** From SIGTERM to SIGKILL. */
const STOP_TIMEOUT_MS = 5_000;
const POLL_MS = 10;
const QUOTA_BYTES = 4 * 1024 ** 3;
/** Lines of etcd's stderr kept to explain an early end. */
const LINES_KEPT = 20;
/** sockaddr_un holds 107 bytes. */
const SOCKET_PATH_BYTES_MAX = 107;

/**
 * An etcd of one member as a child of this manager: started when no `--etcd` is given, stopped with it. It dies with
 * the manager even when that is killed (PR_SET_PDEATHSIG), and one left over from a former life is ended first.
 */
export class EmbeddedEtcd implements AsyncDisposable {
  readonly endpoint: string;
  readonly pid: number;
  /** Resolves when etcd has ended, with the reason if nobody asked it to. */
  readonly exited: Promise<SwarmError | undefined>;
  readonly #child: ChildProcess;
  readonly #options: EmbeddedEtcdOptions;
  #stopping = false;

  private constructor(options: EmbeddedEtcdOptions, endpoint: string, child: ChildProcess, pid: number) {
    this.#options = options;
    this.endpoint = endpoint;
    this.pid = pid;
    this.#child = child;
    const lastLines = forwardLog(child, options.logger);
    this.exited = new Promise((done) => {
      child.once("close", (code, signal) => {
        done(this.#stopping ? undefined : explainExit(options, code ?? signal ?? "?", lastLines));
      });
    });
  }

  /**
   * Starts etcd and waits until it answers.
   * @throws failed_precondition: not installed, the port is taken, or the directory is used by another manager.
   */
  static async start(options: EmbeddedEtcdOptions, signal: AbortSignal): Promise<EmbeddedEtcd> {
    const directory = resolve(options.directory);
    const program = findProgram("etcd");
    if (!program) throw new SwarmError("failed_precondition", "etcd not found: apt-get install etcd-server");
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await chmod(directory, 0o700);
    await endFormerLife(directory, options, signal);
    // A killed etcd leaves its sockets, and the next one takes them for an address in use.
    for (const socket of ["client:1", "peer:1"]) await rm(join(directory, socket), { force: true });
    const endpoint = endpointOf(directory, options.clientPort);
    if (options.clientPort !== undefined && (await accepts(endpoint))) throw portTaken(options.clientPort);
    const argv = [program, ...etcdArguments(directory, options)];
    const deathSignal = findProgram("setpriv");
    if (deathSignal) argv.unshift(deathSignal, "--pdeathsig", "TERM");
    const [command = program, ...args] = argv;
    // A group of its own: Ctrl-C is for the manager, which needs etcd until it has handed over.
    const child = spawn(command, args, {
      cwd: directory,
      detached: true,
      stdio: ["ignore", "ignore", "pipe"],
      env: { PATH: process.env.PATH ?? "", HOME: directory, ETCD_UNSUPPORTED_ARCH: process.arch },
    });
    const { pid } = child;
    if (pid === undefined) {
      const reason = await new Promise((failed) => child.once("error", failed));
      throw SwarmError.wrap(`start ${program}`, reason, "failed_precondition");
    }
    const etcd = new EmbeddedEtcd(options, endpoint, child, pid);
    try {
      await writeOwner(directory, pid);
      await etcd.#ready(signal);
    } catch (reason) {
      // One that ended at once is not in /proc any more: why it ended says more.
      const isGone = errnoOf(reason) === "ESRCH" || errnoOf(reason) === "ENOENT";
      const ended = isGone ? await etcd.exited : undefined;
      await etcd[Symbol.asyncDispose]();
      throw ended ?? reason;
    }
    return etcd;
  }

  /** SIGTERM, then SIGKILL; resolves when the process is gone. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping = true;
    this.#child.kill("SIGTERM");
    const kill = () => this.#child.kill("SIGKILL");
    const { clock } = this.#options;
    await withTimeout(
      { clock, timeoutMs: STOP_TIMEOUT_MS, operation: "stop etcd" },
      new AbortController().signal,
      () => this.exited,
    ).catch(kill);
    await this.exited;
    await rm(join(this.#options.directory, "owner.json"), { force: true });
  }

  async #ready(signal: AbortSignal): Promise<void> {
    const { clock, random, logger } = this.#options;
    const ended = new AbortController();
    void this.exited.then((reason) => ended.abort(reason ?? new SwarmError("canceled", "etcd was stopped")));
    const either = AbortSignal.any([signal, ended.signal]);
    const options = { clock, timeoutMs: START_TIMEOUT_MS, operation: "start etcd" };
    await withTimeout(options, either, async (until) => {
      while (!(await accepts(this.endpoint))) await clock.sleep(POLL_MS, until);
      using kv = new EtcdKv({ endpoints: [this.endpoint], clock, random, logger });
      while (!(await answers(kv, until))) await clock.sleep(POLL_MS, until);
    });
  }
}

function endpointOf(directory: string, clientPort: number | undefined): string {
  if (clientPort !== undefined) return `127.0.0.1:${clientPort}`;
  const path = join(directory, "client:1");
  if (Buffer.byteLength(path) > SOCKET_PATH_BYTES_MAX) {
    const limit = SOCKET_PATH_BYTES_MAX - "/client:1".length;
    throw new SwarmError(
      "invalid_argument",
      `data directory ${directory}: longer than ${limit} bytes, too long for a socket`,
    );
  }
  return `unix:${path}`;
}

/** Only managers' certificates are for that name: no other node of the cluster comes through as a peer. */
const PEER_NAME = "swarm-manager";

function peerArguments(peer: EtcdPeer | undefined): string[][] {
  if (peer === undefined) {
    // etcd names a socket after host:port and makes it in its working directory.
    const url = "unix://peer:1";
    return [
      ["--name", "manager"],
      ["--listen-peer-urls", url],
      ["--initial-advertise-peer-urls", url],
      ["--initial-cluster", `manager=${url}`],
    ];
  }
  const { name, listen, advertise, initialCluster, joins, credentials, forceNewCluster } = peer;
  return [
    ["--name", name],
    ["--listen-peer-urls", peerUrl(listen)],
    ["--initial-advertise-peer-urls", peerUrl(advertise)],
    ["--initial-cluster", initialCluster],
    ["--initial-cluster-state", joins ? "existing" : "new"],
    ["--peer-client-cert-auth"],
    ["--peer-trusted-ca-file", join(credentials, "trust.pem")],
    ["--peer-cert-file", join(credentials, "certificate.pem")],
    ["--peer-key-file", join(credentials, "key.pem")],
    ["--peer-cert-allowed-hostname", PEER_NAME],
    ...(forceNewCluster === true ? [["--force-new-cluster"]] : []),
  ];
}

function etcdArguments(directory: string, { clientPort, peer, quotaBytes }: EmbeddedEtcdOptions): string[] {
  const client = clientPort === undefined ? "unix://client:1" : `http://127.0.0.1:${clientPort}`;
  return [
    ["--data-dir", join(directory, "data")],
    ["--listen-client-urls", client],
    ["--advertise-client-urls", client],
    ...peerArguments(peer),
    ["--enable-v2=false"],
    ["--auto-compaction-mode", "periodic"],
    ["--auto-compaction-retention", "1h"],
    ["--quota-backend-bytes", String(quotaBytes ?? QUOTA_BYTES)],
    // 3.4's 100,000 keeps as many entries in memory; ours are small and restarts stay fast.
    ["--snapshot-count", "10000"],
    ["--logger", "zap"],
    ["--log-level", "warn"],
    ["--log-outputs", "stderr"],
  ].flat();
}

/** The first file of that name that PATH (and the system's own directories) can run. */
function findProgram(name: string): string | undefined {
  const directories = [...(process.env.PATH ?? "").split(delimiter), "/usr/local/bin", "/usr/bin", "/usr/sbin"];
  for (const directory of directories) {
    if (!directory.startsWith("/")) continue;
    const path = join(directory, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not here: the next directory may have it.
    }
  }
  return undefined;
}

/** Whether someone listens at `endpoint`. */
function accepts(endpoint: string): Promise<boolean> {
  const colon = endpoint.lastIndexOf(":");
  const target = endpoint.startsWith("unix:")
    ? { path: endpoint.slice("unix:".length) }
    : { host: endpoint.slice(0, colon), port: Number(endpoint.slice(colon + 1)) };
  return new Promise((done) => {
    const socket = createConnection(target);
    socket.once("connect", () => {
      socket.destroy();
      done(true);
    });
    socket.once("error", () => done(false));
  });
}

async function answers(kv: EtcdKv, signal: AbortSignal): Promise<boolean> {
  try {
    await kv.range({ from: { key: "/health" }, limit: 1 }, signal);
    return true;
  } catch (reason) {
    if (reason instanceof SwarmError && reason.code === "unavailable") return false;
    throw reason;
  }
}

function portTaken(port: number): SwarmError {
  return new SwarmError("failed_precondition", `start etcd: port ${port} is taken`);
}

function explainExit(options: EmbeddedEtcdOptions, status: number | string, lines: readonly string[]): SwarmError {
  const output = lines.join("\n");
  if (output.includes("address already in use") && options.clientPort !== undefined)
    return portTaken(options.clientPort);
  const last = lines.at(-1) ?? "it said nothing";
  return new SwarmError("failed_precondition", `etcd ended with ${status}: ${last}`);
}

/** Passes etcd's warnings on and keeps the last lines. */
function forwardLog(child: ChildProcess, logger: Logger): readonly string[] {
  const kept: string[] = [];
  if (!child.stderr) return kept;
  createInterface({ input: child.stderr }).on("line", (line) => {
    kept.push(line);
    if (kept.length > LINES_KEPT) kept.shift();
    // etcd says so whenever authentication by password is off.
    if (!line.includes("simple token is not cryptographically signed")) logger.warn({ line }, "etcd says");
  });
  return kept;
}

/** Ends an etcd that a manager killed before us left behind; refuses while that manager lives. */
async function endFormerLife(
  directory: string,
  { clock, logger }: EmbeddedEtcdOptions,
  signal: AbortSignal,
): Promise<void> {
  const owner = await readOwner(directory);
  if (!owner) return;
  if (await isAlive(owner.manager)) {
    throw new SwarmError("failed_precondition", `${directory} is in use by the manager with pid ${owner.manager.pid}`);
  }
  const killAtMs = clock.monotonicMs() + STOP_TIMEOUT_MS;
  for (let signalName: NodeJS.Signals = "SIGTERM"; await isAlive(owner.etcd); ) {
    if (clock.monotonicMs() >= killAtMs) signalName = "SIGKILL";
    logger.debug({ pid: owner.etcd.pid, signalName }, "ending the etcd of a former manager");
    try {
      process.kill(owner.etcd.pid, signalName);
    } catch (reason) {
      if (errnoOf(reason) !== "ESRCH") throw SwarmError.wrap(`end etcd ${owner.etcd.pid}`, reason);
    }
    await clock.sleep(POLL_MS * 5, signal);
  }
}

async function writeOwner(directory: string, etcdPid: number): Promise<void> {
  const owner: Owner = { etcd: await identify(etcdPid), manager: await identify(process.pid) };
  const path = join(directory, "owner.json");
  await writeFile(`${path}.new`, JSON.stringify(owner), { mode: 0o600 });
  await rename(`${path}.new`, path);
}

async function readOwner(directory: string): Promise<Owner | undefined> {
  let text: string;
  try {
    text = await readFile(join(directory, "owner.json"), "utf8");
  } catch (reason) {
    if (errnoOf(reason) === "ENOENT") return undefined;
    throw SwarmError.wrap(`read ${directory}/owner.json`, reason);
  }
  try {
    return JSON.parse(text) as Owner;
  } catch {
    // Only a disk fault makes it unreadable (it is renamed into place); etcd's own lock still guards the data.
    return undefined;
  }
}

async function identify(pid: number): Promise<ProcessIdentity> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  // The name in field 2 may hold spaces and parentheses: count from its end.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  // A zombie has ended; only its parent has not looked yet.
  const ended = fields[0] === "Z" || fields[0] === "X";
  return { pid, startTime: ended ? "" : (fields[19] ?? "") };
}

async function isAlive({ pid, startTime }: ProcessIdentity): Promise<boolean> {
  try {
    return (await identify(pid)).startTime === startTime;
  } catch (reason) {
    if (errnoOf(reason) === "ENOENT" || errnoOf(reason) === "ESRCH") return false;
    throw SwarmError.wrap(`look at process ${pid}`, reason);
  }
}
