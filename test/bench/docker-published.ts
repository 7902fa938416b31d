/**
 * A port that Docker publishes, to be asked as one of ours is: the engine has a network namespace of its own with an
 * address in it, and a container there. The server is started in the container's network from outside, as ours is: what
 * differs is the path alone.
 */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { ContainerStarted } from "../network-lab.ts";
import { DockerEngine, IMAGE } from "./docker-engine.ts";

const execute = promisify(execFile);

const ADDRESS = "192.0.2.9";

export class DockerPublished implements AsyncDisposable {
  readonly #engine: DockerEngine;
  /** The engine's host, as a process that is on its network. */
  readonly host: ContainerStarted;
  readonly container: ContainerStarted;
  /** "address:port" of the host, which leads to the container. */
  readonly place: string;

  private constructor(
    engine: DockerEngine,
    pids: { readonly host: number; readonly container: number },
    place: string,
  ) {
    this.#engine = engine;
    this.host = { pid: pids.host, ms: 0 };
    this.container = { pid: pids.container, ms: 0 };
    this.place = place;
  }

  /** Starts the engine and a container, and publishes `targetPort` of it as `port`. */
  static async start(port: number, targetPort: number): Promise<DockerPublished> {
    const engine = await DockerEngine.start();
    try {
      const [host] = engine.programs();
      if (host === undefined) throw new Error("dockerd has no process");
      await execute("nsenter", [`--net=/proc/${host}/ns/net`, "ip", "address", "add", `${ADDRESS}/32`, "dev", "lo"]);
      const id = await engine.docker("run", "-d", "-p", `${port}:${targetPort}`, IMAGE, "sleep", "1d");
      const container = Number(await engine.docker("inspect", "-f", "{{.State.Pid}}", id.trim()));
      return new DockerPublished(engine, { host, container }, `${ADDRESS}:${port}`);
    } catch (error) {
      await engine[Symbol.asyncDispose]();
      throw error;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#engine[Symbol.asyncDispose]();
  }
}
