/** The peer's side: Docker Swarm on a node of its own. */
import { DockerEngine, IMAGE } from "./docker-engine.ts";
import type { Side } from "./side.ts";

export class DockerSide implements Side {
  readonly image = IMAGE;
  /** The image is there: it need not ask its registry which one it is. */
  readonly createOptions = ["--no-resolve-image"];
  readonly #engine: DockerEngine;

  private constructor(engine: DockerEngine) {
    this.#engine = engine;
  }

  static async start(): Promise<DockerSide> {
    const engine = await DockerEngine.start();
    try {
      await engine.docker("swarm", "init", "--advertise-addr", "127.0.0.1");
      return new DockerSide(engine);
    } catch (error) {
      await engine[Symbol.asyncDispose]();
      throw error;
    }
  }

  get cgroupParent(): string {
    return this.#engine.cgroupParent;
  }

  run(...args: readonly string[]): Promise<string> {
    return this.#engine.docker(...args);
  }

  async replicas(service: string): Promise<string> {
    const filters = encodeURIComponent(JSON.stringify({ name: { [service]: true } }));
    const services = (await this.#engine.get(`/services?status=true&filters=${filters}`)) as readonly {
      readonly ServiceStatus: { readonly RunningTasks: number; readonly DesiredTasks: number };
    }[];
    const status = services[0]?.ServiceStatus;
    return `${status?.RunningTasks}/${status?.DesiredTasks}`;
  }

  async containers(): Promise<number> {
    return ((await this.#engine.get("/containers/json?all=1")) as readonly unknown[]).length;
  }

  programs(): Readonly<Record<string, readonly number[]>> {
    return { dockerd: this.#engine.programs() };
  }

  supervisors(): readonly number[] {
    return this.#engine.shims();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#engine.docker("swarm", "leave", "--force");
    await this.#engine[Symbol.asyncDispose]();
  }
}
