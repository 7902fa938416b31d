/** Our side: a manager with its own etcd, and one agent, on hosts of their own. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { openGrpcTransport } from "../../common/rpc/grpc-transport.ts";
import { createClient, type Transport } from "../../common/rpc/service.ts";
import { Control } from "../../proto/gen/swarm/v1/control_pb.js";
import { buildImage, busyboxFiles } from "../images.ts";
import { type Program, TestCluster } from "../integration/cluster.ts";
import { childrenOf, nameOf, removeCgroups } from "./measure.ts";
import type { Side } from "./side.ts";

const NODE = "node-1";

export class SwarmSide implements Side {
  readonly image = "bench/busybox:1";
  readonly createOptions: readonly string[] = [];
  readonly cgroupParent: string;
  readonly #cluster: TestCluster;
  readonly #transport: Transport;

  private constructor(cluster: TestCluster, cgroupParent: string) {
    this.#cluster = cluster;
    this.cgroupParent = cgroupParent;
    this.#transport = openGrpcTransport({ address: `unix:${cluster.socket()}` });
  }

  static async start(): Promise<SwarmSide> {
    const cgroupParent = `/swarm-bench-tasks-${process.pid}`;
    const cluster = await TestCluster.start({
      nodes: 1,
      // As in production, where Docker's engine says little too.
      managerArgs: ["--log-level", "info"],
      agentArgs: ["--log-level", "info", "--cgroup-parent", cgroupParent],
    });
    try {
      const side = new SwarmSide(cluster, cgroupParent);
      const config = { Cmd: ["sleep", "1d"] };
      const layers = [{ files: busyboxFiles() }];
      const image = buildImage({ name: side.image, directory: cluster.folder("image"), layers, config });
      await side.run("image", "load", image);
      return side;
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
  }

  run(...args: readonly string[]): Promise<string> {
    return this.#cluster.swarmctl(...args);
  }

  async replicas(service: string): Promise<string> {
    const { services } = await createClient(Control, this.#transport).listServices({ references: [service] });
    return `${services[0]?.runningTasks}/${services[0]?.desiredTasks}`;
  }

  async containers(): Promise<number> {
    const directory = join(this.#cluster.directory, NODE, "containers");
    return existsSync(directory) ? readdirSync(directory).length : 0;
  }

  programs(): Readonly<Record<string, readonly number[]>> {
    const manager = idOf(this.#cluster.managers[0]);
    const agent = idOf(this.#cluster.agent(NODE));
    return { manager: [manager], etcd: childrenOf(manager), agent: [agent, ...childrenOf(agent)] };
  }

  supervisors(): readonly number[] {
    const runners = childrenOf(idOf(this.#cluster.agent(NODE)));
    return runners.flatMap(childrenOf).filter((pid) => nameOf(pid) === "swarm-super");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#transport[Symbol.asyncDispose]();
    await this.#cluster[Symbol.asyncDispose]();
    await removeCgroups(this.cgroupParent);
  }
}

function idOf(program: Program | undefined): number {
  if (program?.process.pid === undefined) throw new Error("a program did not start");
  return program.process.pid;
}
