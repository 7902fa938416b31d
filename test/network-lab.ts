/** Network namespaces for tests: a host with a real NetworkManager in it, and an outside client on its wire. */
import { type ChildProcessByStdio, execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { promisify } from "node:util";
import type { Protocol } from "../agent/network/ruleset.ts";
import type { TaskId } from "../common/base/id.ts";

const run = promisify(execFile);
const root = new URL("..", import.meta.url).pathname;

/** util-linux's way into a namespace. */
const ENTER = "nsenter";

/** What the host can be asked to do; see `network-host.ts`. */
export type HostRequest =
  | { readonly do: "open"; readonly pool: string }
  | { readonly do: "run" | "start" | "reconcile" | "removeAll" }
  | { readonly do: "attach"; readonly taskId: TaskId; readonly address: string; readonly command: readonly string[] }
  | { readonly do: "publish"; readonly ports: readonly TestPort[] }
  | { readonly do: "detach"; readonly taskId: TaskId; readonly address: string }
  | { readonly do: "cleanup"; readonly live: readonly TaskId[] };

/** A published port with its targets' addresses as text. */
export interface TestPort {
  readonly protocol: Protocol;
  readonly port: number;
  readonly hostIp?: string;
  readonly targets: readonly { readonly address: string; readonly port: number }[];
}

/** A container that runs: its process and the time its network operations took. */
export interface ContainerStarted {
  readonly pid: number;
  readonly ms: number;
}

/** The addresses of the wire between the two namespaces. */
export const HOST_ADDRESS = "192.0.2.1";
export const CLIENT_ADDRESS = "192.0.2.2";

/** One host, one client, one wire; all of it goes when it is disposed. */
export class Lab implements AsyncDisposable {
  readonly directory: string;
  readonly #suffix = randomBytes(4).toString("hex");
  readonly #children = new Set<ChildProcessByStdio<Writable, Readable, null>>();
  #answers: AsyncIterator<string> | undefined;
  #host: ChildProcessByStdio<Writable, Readable, null> | undefined;

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async open(): Promise<Lab> {
    const lab = new Lab(await mkdtemp(join(tmpdir(), "swarm-network-")));
    await lab.#build();
    return lab;
  }

  get hostNamespace(): string {
    return `swarm-host-${this.#suffix}`;
  }

  get clientNamespace(): string {
    return `swarm-client-${this.#suffix}`;
  }

  get helper(): string {
    return join(this.directory, "helper");
  }

  /** Asks the host; throws its error. */
  async ask(request: HostRequest): Promise<unknown> {
    this.#host?.stdin.write(`${JSON.stringify(request)}\n`);
    const { value, done } = (await this.#answers?.next()) ?? { value: "", done: true };
    if (done) throw new Error("the host ended");
    const answer = JSON.parse(value);
    if (answer.error !== undefined) throw new Error(answer.error);
    return answer.result;
  }

  /** Starts busybox's httpd in a container of the host; it answers with `name`. */
  async serveHttp(taskId: TaskId, address: string, name: string): Promise<ContainerStarted> {
    const home = join(this.directory, name);
    await mkdir(home, { recursive: true });
    await writeFile(join(home, "index.html"), name);
    const command = ["busybox", "httpd", "-f", "-p", "80", "-h", home];
    return (await this.ask({ do: "attach", taskId, address, command })) as ContainerStarted;
  }

  inHost(...command: readonly string[]): Promise<string> {
    return this.#within(`/run/netns/${this.hostNamespace}`, command);
  }

  inClient(...command: readonly string[]): Promise<string> {
    return this.#within(`/run/netns/${this.clientNamespace}`, command);
  }

  inContainer(container: ContainerStarted, ...command: readonly string[]): Promise<string> {
    return this.#within(`/proc/${container.pid}/ns/net`, command);
  }

  /** Starts a command in a namespace that runs until the lab is gone. */
  start(namespace: string, ...command: readonly string[]): ChildProcessByStdio<Writable, Readable, null> {
    return this.#spawn(`/run/netns/${namespace}`, command);
  }

  /** The same in the network namespace of a container. */
  startIn(container: ContainerStarted, ...command: readonly string[]): void {
    this.#spawn(`/proc/${container.pid}/ns/net`, command);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(
      [...this.#children].map(async (child) => {
        const ended = new Promise((resolve) => child.once("exit", resolve));
        // The host ends at the end of its input and takes its containers with it; others know nothing of that.
        if (child === this.#host) child.stdin.end();
        else child.kill("SIGKILL");
        await ended;
      }),
    );
    for (const name of [this.hostNamespace, this.clientNamespace]) await run("ip", ["netns", "del", name]);
    await rm(this.directory, { recursive: true, force: true });
  }

  async #build(): Promise<void> {
    const source = join(root, "test/network-helper.c");
    await run("gcc", ["-O1", "-Wall", "-Wextra", "-o", this.helper, source]);
    const [host, client] = [this.hostNamespace, this.clientNamespace];
    for (const name of [host, client]) await run("ip", ["netns", "add", name]);
    await run("ip", ["-n", host, "link", "add", "wire", "type", "veth", "peer", "wire", "netns", client]);
    for (const [name, address] of [
      [host, HOST_ADDRESS],
      [client, CLIENT_ADDRESS],
    ] as const) {
      await run("ip", ["-n", name, "addr", "add", `${address}/24`, "dev", "wire"]);
      for (const link of ["lo", "wire"]) await run("ip", ["-n", name, "link", "set", link, "up"]);
    }
    const node = join(root, "node_modules/.bin/node");
    this.#host = this.start(host, node, join(root, "test/network-host.ts"), this.helper);
    this.#answers = createInterface({ input: this.#host.stdout })[Symbol.asyncIterator]();
  }

  #spawn(namespace: string, command: readonly string[]): ChildProcessByStdio<Writable, Readable, null> {
    const child = spawn(ENTER, [`--net=${namespace}`, ...command], { stdio: ["pipe", "pipe", "inherit"] });
    this.#children.add(child);
    child.once("exit", () => this.#children.delete(child));
    return child;
  }

  async #within(namespace: string, command: readonly string[]): Promise<string> {
    const { stdout } = await run(ENTER, [`--net=${namespace}`, ...command], { timeout: 20_000 });
    return stdout;
  }
}
