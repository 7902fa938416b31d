/**
 * Debian's docker.io, with nothing of it left behind: an engine in namespaces of its own for network and mounts, its
 * files in a temporary directory, its containers in a cgroup of their own. What it writes to /etc and /run goes with it.
 */
import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { buildImage, busyboxFiles } from "../images.ts";
import { childrenOf, MemoryGroup, nameOf, processesWith, removeCgroups, until } from "./measure.ts";

const execute = promisify(execFile);
const ROOT = new URL("../..", import.meta.url).pathname;

/** Docker's own, also where somebody installed another client. */
const CLIENT = "/usr/bin/docker";

/**
 * Docker asks a service's image's registry for it even when it is there. With this name that fails at once; a name of
 * Docker's hub would cost it seconds of waiting for DNS.
 */
export const IMAGE = "localhost:5000/bench/busybox:1";

/** Installs what is missing, with the words and the care of the quickstart: packages must not start their daemons. */
export function installDocker(): void {
  const packages = "need_packages /usr/sbin/dockerd=docker.io='the peer of this benchmark' runc=runc='the peer'";
  const script = `. deploy/setup.sh; ${packages}`;
  execFileSync("bash", ["-euc", script], { cwd: ROOT, stdio: ["ignore", "inherit", "inherit"] });
}

export class DockerEngine implements AsyncDisposable {
  readonly #directory = mkdtempSync(join(tmpdir(), "swarm-peer-"));
  readonly #daemon: ChildProcess;
  readonly cgroupParent = `/swarm-peer-${process.pid}`;

  private constructor(networkPath: string | undefined) {
    for (const name of ["etc", "work"]) mkdirSync(join(this.#directory, name));
    // `exec` throughout, so that the daemon's process id is the child's.
    const script = `mount -t tmpfs tmpfs /run && ip link set lo up && cd "$0" &&
      mount -t overlay -o lowerdir=/etc,upperdir=etc,workdir=work overlay /etc &&
      exec dockerd --data-root "$0/data" --exec-root "$0/exec" --pidfile "$0/pid" --host "unix://$0/socket" \\
        --cgroup-parent "${this.cgroupParent}" --log-level error`;
    const mount = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", script, this.#directory];
    const network = networkPath === undefined ? ["unshare", "--net"] : ["nsenter", `--net=${networkPath}`];
    const [program = "", ...args] = [...network, ...mount];
    this.#daemon = spawn(program, args, { stdio: "ignore" });
  }

  /**
   * Starts it and loads the image of `busybox sleep`. `networkPath`: the file of a network namespace that is there;
   * default one of its own.
   */
  static async start(networkPath?: string): Promise<DockerEngine> {
    const engine = new DockerEngine(networkPath);
    try {
      await until(() => engine.#answers(), 60_000);
      const config = { Cmd: ["sleep", "1d"], Env: ["PATH=/bin"] };
      const layers = [{ files: busyboxFiles() }];
      const image = buildImage({ name: IMAGE, directory: engine.#directory, format: "docker", layers, config });
      await engine.docker("load", "-i", image);
      return engine;
    } catch (error) {
      await engine[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Runs the client. */
  async docker(...args: readonly string[]): Promise<string> {
    return (await execute(CLIENT, ["-H", `unix://${this.#socket}`, ...args])).stdout;
  }

  /** Asks the engine's API, as the client does. */
  async get(path: string): Promise<unknown> {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const asked = request({ socketPath: this.#socket, path: `/v1.41${path}` }, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (part: string) => {
        body += part;
      });
      response.on("end", () => resolve(body));
      response.on("error", reject);
    });
    asked.on("error", reject);
    asked.end();
    return JSON.parse(await promise);
  }

  get #socket(): string {
    return join(this.#directory, "socket");
  }

  /** dockerd and its containerd. */
  programs(): readonly number[] {
    const { pid } = this.#daemon;
    return pid === undefined ? [] : [pid, ...childrenOf(pid).filter((child) => nameOf(child) === "containerd")];
  }

  /** One per container; they belong to nobody. */
  shims(): readonly number[] {
    return processesWith("containerd-shim", this.#directory);
  }

  async #answers(): Promise<boolean> {
    if (this.#daemon.exitCode !== null) throw new Error("dockerd does not start: see `dockerd --debug`");
    return await this.get("/version").then(
      () => true,
      () => false,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = Promise.withResolvers<void>();
    this.#daemon.once("exit", () => ended.resolve());
    if (this.#daemon.exitCode !== null || this.#daemon.signalCode !== null) ended.resolve();
    else this.#daemon.kill("SIGTERM");
    await ended.promise;
    // It ends its containers itself; should it have died instead, they and their shims are still there.
    for (const pid of [...this.shims(), ...new MemoryGroup(this.cgroupParent).processes()])
      process.kill(pid, "SIGKILL");
    await until(async () => this.shims().length === 0, 30_000);
    await removeCgroups(this.cgroupParent);
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
