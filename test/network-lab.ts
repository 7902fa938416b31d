/** Network namespaces for tests: hosts with a real NetworkManager in each, and an outside client on their wire. */
import { type ChildProcessByStdio, execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { copyFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { promisify } from "node:util";
import type { Affinity, Protocol } from "../agent/network/ruleset.ts";
import type { TaskId } from "../common/base/id.ts";

const run = promisify(execFile);
const root = new URL("..", import.meta.url).pathname;

/** util-linux's way into a namespace. */
const ENTER = "nsenter";

/** What a host can be asked to do; see `network-host.ts`. */
export type HostRequest =
  | OpenRequest
  | { readonly do: "run" | "start" | "reconcile" | "removeAll" | "routes" | "steps" | "warnings" }
  | { readonly do: "move"; readonly local: string }
  | { readonly do: "key"; readonly key: string }
  | { readonly do: "attach"; readonly task: TestTask; readonly command: readonly string[] }
  | { readonly do: "publish"; readonly ports: readonly TestPort[] }
  | { readonly do: "cluster"; readonly cluster: TestCluster }
  | { readonly do: "detach"; readonly task: TestTask }
  | { readonly do: "adopt"; readonly live: readonly TestTask[] };

/** Opens the host's network; the process kills itself in place of its `dieAt`-th step after that, counted from one. */
export interface OpenRequest {
  readonly do: "open";
  readonly pool: string;
  readonly local?: string;
  /** Its WireGuard key, private, hexadecimal. */
  readonly key?: string;
  /** File that remembers the rules for the next one. */
  readonly record?: string;
  readonly linkLocal?: boolean;
  readonly dieAt?: number;
}

/** A task and its addresses, "10.224.0.7/12", one for each network; those on internal and on encrypted ones are named. */
export interface TestTask {
  readonly taskId: TaskId;
  readonly addresses: readonly string[];
  /** The same in IPv6, of the same networks. */
  readonly ipv6?: readonly string[];
  readonly internal?: readonly string[];
  readonly encrypted?: readonly string[];
}

/** A published port with its targets' addresses as text. */
export interface TestPort {
  readonly protocol: Protocol;
  readonly port: number;
  readonly hostIp?: string;
  readonly affinity?: Affinity;
  readonly targets: readonly { readonly address: string; readonly port: number }[];
}

/** What `NetworkManager.setCluster` takes, with addresses as text. */
export interface TestCluster {
  readonly networks?: readonly { readonly subnet: string; readonly internal?: boolean; readonly encrypted?: boolean }[];
  readonly hosts?: readonly string[];
  /** Private WireGuard keys of hosts, hexadecimal; only the public ones are used. */
  readonly keys?: Readonly<Record<string, string>>;
  /** Those of `remote` that are to be reached by the encrypted way. */
  readonly encrypted?: readonly string[];
  readonly remote?: Readonly<Record<string, string>>;
  readonly virtual?: Readonly<Record<string, readonly string[]>>;
  readonly leaving?: Readonly<Record<string, readonly string[]>>;
  readonly affinity?: Affinity;
  readonly published?: readonly TestPort[];
  /** "10.0.1.11:80", "10.0.1.11:5000/sctp". */
  readonly served?: readonly string[];
}

/** A container that runs: its process and the time its network operations took. */
export interface ContainerStarted {
  readonly pid: number;
  readonly ms: number;
}

/** The addresses on the wire between the namespaces: the first host's, and the client's. */
export const HOST_ADDRESS = "192.0.2.1";
export const CLIENT_ADDRESS = "192.0.2.254";
/** What they have in front of them in IPv6: 2001:db8::192.0.2.1 is 2001:db8::c000:201. */
const IPV6_WIRE = "2001:db8::";

type Child = ChildProcessByStdio<Writable, Readable, null>;

/** One host: a network namespace and the process in it that owns its network. */
export class LabHost {
  readonly address: string;
  readonly namespace: string;
  readonly #lab: Lab;
  readonly #process: Child;
  readonly #answers: AsyncIterator<string>;

  constructor(lab: Lab, options: { readonly namespace: string; readonly address: string }) {
    this.#lab = lab;
    this.namespace = options.namespace;
    this.address = options.address;
    const node = join(root, "node_modules/.bin/node");
    this.#process = lab.start(this.namespace, node, join(root, "test/network-host.ts"), lab.helper);
    this.#answers = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();
  }

  /** Asks the host; throws its error. */
  async ask(request: HostRequest): Promise<unknown> {
    this.#process.stdin.write(`${JSON.stringify(request)}\n`);
    const { value, done } = await this.#answers.next();
    if (done) throw new Error("the host ended");
    const answer = JSON.parse(value);
    if (answer.error !== undefined) throw new Error(answer.error);
    return answer.result;
  }

  /** Starts busybox's httpd in a container of the host; it answers with `name`. */
  async serveHttp(task: TestTask, name: string): Promise<ContainerStarted> {
    const home = join(this.#lab.directory, name);
    await mkdir(home, { recursive: true });
    await writeFile(join(home, "index.html"), name);
    const command = ["busybox", "httpd", "-f", "-p", "80", "-h", home];
    return (await this.ask({ do: "attach", task, command })) as ContainerStarted;
  }

  run(...command: readonly string[]): Promise<string> {
    return within(`/run/netns/${this.namespace}`, command);
  }

  /** Resolves once the process is gone. */
  async gone(): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) await once(this.#process, "exit");
  }

  /** Ends the host's process, and with it its containers. It knows nothing of signals: the end of its input is its end. */
  end(): void {
    this.#process.stdin.end();
  }

  owns(child: Child): boolean {
    return child === this.#process;
  }
}

/** Hosts, one client, one wire; all of it goes when it is disposed. */
export class Lab implements AsyncDisposable {
  readonly directory: string;
  readonly hosts: LabHost[] = [];
  readonly #suffix = randomBytes(4).toString("hex");
  readonly #children = new Set<Child>();
  readonly #again: LabHost[] = [];

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async open(hosts = 1): Promise<Lab> {
    const lab = new Lab(await mkdtemp(join(tmpdir(), "swarm-network-")));
    await lab.#build(hosts);
    return lab;
  }

  get clientNamespace(): string {
    return `swarm-client-${this.#suffix}`;
  }

  get helper(): string {
    return join(this.directory, "helper");
  }

  /** The first host, for tests that have but one. */
  get host(): LabHost {
    const [host] = this.hosts;
    if (host === undefined) throw new Error("the lab has no host");
    return host;
  }

  get hostNamespace(): string {
    return this.host.namespace;
  }

  ask(request: HostRequest): Promise<unknown> {
    return this.host.ask(request);
  }

  inHost(...command: readonly string[]): Promise<string> {
    return this.host.run(...command);
  }

  inClient(...command: readonly string[]): Promise<string> {
    return within(`/run/netns/${this.clientNamespace}`, command);
  }

  inContainer(container: ContainerStarted, ...command: readonly string[]): Promise<string> {
    return within(`/proc/${container.pid}/ns/net`, command);
  }

  /** One more process that owns the network of a host: an agent of another life. */
  again({ namespace, address }: LabHost): LabHost {
    const host = new LabHost(this, { namespace, address });
    this.#again.push(host);
    return host;
  }

  /** Starts a command in a namespace that runs until the lab is gone. */
  start(namespace: string, ...command: readonly string[]): Child {
    return this.#spawn(`/run/netns/${namespace}`, command);
  }

  /** The same in the network namespace of a container. */
  startIn(container: ContainerStarted, ...command: readonly string[]): Child {
    return this.#spawn(`/proc/${container.pid}/ns/net`, command);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(
      [...this.#children].map(async (child) => {
        const ended = new Promise((resolve) => child.once("exit", resolve));
        const host = [...this.hosts, ...this.#again].find((each) => each.owns(child));
        if (host) host.end();
        else child.kill("SIGKILL");
        await ended;
      }),
    );
    for (const name of [...this.hosts.map(({ namespace }) => namespace), this.clientNamespace]) {
      await run("ip", ["netns", "del", name]);
    }
    await rm(this.directory, { recursive: true, force: true });
  }

  async #build(count: number): Promise<void> {
    const source = join(root, "test/network-helper.c");
    const built = process.env.NETWORK_HELPER;
    if (built !== undefined) await copyFile(built, this.helper);
    else await run("gcc", ["-O1", "-Wall", "-Wextra", "-o", this.helper, source]);
    const client = this.clientNamespace;
    await run("ip", ["netns", "add", client]);
    await run("ip", ["-n", client, "link", "add", "wire", "type", "bridge"]);
    await run("ip", ["-n", client, "addr", "add", `${CLIENT_ADDRESS}/24`, "dev", "wire"]);
    await run("ip", ["-n", client, "addr", "add", `${ipv6On(CLIENT_ADDRESS)}/96`, "dev", "wire", "nodad"]);
    for (const link of ["lo", "wire"]) await run("ip", ["-n", client, "link", "set", link, "up"]);
    for (let index = 1; index <= count; index++) {
      const namespace = `swarm-host${index}-${this.#suffix}`;
      const address = `192.0.2.${index}`;
      await run("ip", ["netns", "add", namespace]);
      const peer = ["peer", `port${index}`, "netns", client];
      await run("ip", ["-n", namespace, "link", "add", "wire", "type", "veth", ...peer]);
      await run("ip", ["-n", client, "link", "set", `port${index}`, "master", "wire", "up"]);
      await run("ip", ["-n", namespace, "addr", "add", `${address}/24`, "dev", "wire"]);
      await run("ip", ["-n", namespace, "addr", "add", `${ipv6On(address)}/96`, "dev", "wire", "nodad"]);
      for (const link of ["lo", "wire"]) await run("ip", ["-n", namespace, "link", "set", link, "up"]);
      this.hosts.push(new LabHost(this, { namespace, address }));
    }
  }

  #spawn(namespace: string, command: readonly string[]): Child {
    const child = spawn(ENTER, [`--net=${namespace}`, ...command], { stdio: ["pipe", "pipe", "inherit"] });
    this.#children.add(child);
    child.once("exit", () => this.#children.delete(child));
    return child;
  }
}

/** The IPv6 address of the one that has an IPv4 address on the wire. */
export function ipv6On(address: string): string {
  return new URL(`http://[${IPV6_WIRE}${address}]`).hostname.slice(1, -1);
}

async function within(namespace: string, command: readonly string[]): Promise<string> {
  const { stdout } = await run(ENTER, [`--net=${namespace}`, ...command], { timeout: 20_000 });
  return stdout;
}
