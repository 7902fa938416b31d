/**
 * What people do: creates, updates, scales, rolls back and removes services, drains nodes; through the real API, trying
 * again as a client would. It remembers what was acknowledged, to compare with the history (H10).
 */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { SwarmError } from "../../common/base/error.ts";
import { pick, type Random } from "../../common/base/random.ts";
import { isJob } from "../../common/model/service-mode.ts";
import type { Client } from "../../common/rpc/service.ts";
import type { Control, ServiceView } from "../../proto/gen/swarm/v1/control_pb.js";
import {
  NetworkAttachmentConfigSchema,
  NodeSpec_Availability,
  type ServiceSpec,
  ServiceSpecSchema,
  UpdateConfig_FailureAction,
  UpdateConfig_Order,
  UpdateStatus_State,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { between, chance, integerBetween } from "./chance.ts";
import type { World } from "./world.ts";

const SERVICES_MAX = 5;
const REPLICAS_MAX = 5;
/** Tries of one operation; a person gives up some time. */
const ATTEMPTS_MAX = 8;
const MEMORY_BYTES = 256n * 1024n ** 2n;

type Api = Client<typeof Control>;
type SpecInit = MessageInitShape<typeof ServiceSpecSchema> & { readonly name: string };

export class Workload {
  readonly #world: World;
  readonly #random: Random;
  #active = true;
  #names = 0;
  #images = 0;

  constructor(world: World, random: Random) {
    this.#world = world;
    this.#random = random;
  }

  /** Works until `end`. */
  async run(): Promise<void> {
    const everyMs = between(this.#random, 500, 6_000);
    while (this.#active) {
      const operate = pick(this.#random, this.#operations());
      if (operate) await this.#tryHard(operate, ATTEMPTS_MAX);
      await this.#world.clock.sleep(between(this.#random, 0, 2 * everyMs));
    }
  }

  end(): void {
    this.#active = false;
  }

  /** Puts right what a person would have to: drained nodes, images that cannot run, updates that paused. */
  async mend(): Promise<void> {
    for (const { host } of this.#world.nodes) {
      await this.#tryHard((api) => this.#setAvailability(api, host.nodeId, NodeSpec_Availability.ACTIVE), 100);
    }
    await this.#tryHard(async (api) => {
      for (const view of (await api.listServices({})).services) {
        if (!view.spec || !needsHelp(view)) continue;
        const image = `${this.#goodImage()}${isJob(view.spec) ? "-once" : ""}`;
        await this.#update(api, view, withImage(view.spec, image));
      }
    }, 100);
  }

  #operations(): readonly ((api: Api) => Promise<void>)[] {
    return [
      (api) => this.#create(api),
      (api) => this.#create(api),
      (api) => this.#change(api, (spec) => withReplicas(spec, integerBetween(this.#random, 0, REPLICAS_MAX))),
      (api) => this.#change(api, (spec) => withReplicas(spec, integerBetween(this.#random, 0, REPLICAS_MAX))),
      (api) => this.#change(api, (spec) => withImage(spec, this.#image())),
      (api) => this.#change(api, (spec) => withImage(spec, this.#image())),
      (api) => this.#change(api, (spec) => ({ ...spec, ...this.#updates() })),
      (api) => this.#rollBack(api),
      (api) => this.#remove(api),
      (api) => this.#drain(api),
      (api) => this.#activate(api),
    ];
  }

  /** One operation, at any manager, again while the fault is not the caller's. */
  async #tryHard(operate: (api: Api) => Promise<void>, attemptsMax: number): Promise<void> {
    for (let attempt = 1; attempt <= attemptsMax; attempt++) {
      const manager = pick(this.#random, this.#world.managers);
      if (!manager) return;
      try {
        return await operate(this.#world.control(manager));
      } catch (reason) {
        const { code, message } = SwarmError.from(reason);
        this.#world.log.add("client", `${manager.name}: ${code} ${message}`);
        if (code === "internal" || code === "unknown") this.#world.violated(`API answered ${code}: ${message}`);
        if (code !== "unavailable" && code !== "deadline_exceeded" && code !== "aborted") return;
      }
      await this.#world.clock.sleep(between(this.#random, 50, 1_000));
    }
  }

  async #create(api: Api): Promise<void> {
    const { services } = await api.listServices({ withoutSpecs: true });
    if (services.length >= SERVICES_MAX) return;
    this.#names += 1;
    const target = await this.#network(api, this.#names);
    const spec = withNetwork(this.#spec(`s${this.#names}`), target);
    const { service } = await api.createService({ spec });
    const id = service?.service?.id ?? "";
    this.#world.log.add("client", `created ${spec.name} ${id}`);
    this.#world.checker.acknowledged({ type: "created", serviceId: id });
  }

  /** Every other service is on one of two networks, which come and go with those that are on them. */
  async #network(api: Api, number: number): Promise<string | undefined> {
    if (number % 2 === 0) return undefined;
    const name = `net${number % 4}`;
    const { networks } = await api.listNetworks({});
    for (const { network, serviceNames } of networks) {
      if (!network?.spec || serviceNames.length > 0) continue;
      await api.removeNetwork({ networkId: network.id });
      this.#world.log.add("client", `removed network ${network.name}`);
    }
    if (networks.some(({ network, serviceNames }) => network?.name === name && serviceNames.length > 0)) return name;
    await api.createNetwork({ spec: { name, ipv6: number % 8 === 1 } });
    this.#world.log.add("client", `created network ${name}`);
    return name;
  }

  async #change(api: Api, change: (spec: ServiceSpec) => ServiceSpec): Promise<void> {
    const view = await this.#anyService(api);
    if (view?.spec) await this.#update(api, view, change(view.spec));
  }

  async #update(api: Api, { service }: ServiceView, spec: ServiceSpec): Promise<void> {
    if (!service) return;
    const answer = await api.updateService({ serviceId: service.id, version: service.meta?.version ?? 0n, spec });
    const version = answer.service?.service?.specVersion ?? 0n;
    this.#world.log.add("client", `updated ${service.name} to ${version}: ${spec.task?.container?.image}`);
    this.#world.checker.acknowledged({ type: "updated", serviceId: service.id, version });
  }

  async #rollBack(api: Api): Promise<void> {
    const { service } = (await this.#anyService(api)) ?? {};
    if (!service || service.previousSpecVersion === 0n) return;
    await api.updateService({ serviceId: service.id, version: service.meta?.version ?? 0n, rollback: true });
    this.#world.log.add("client", `rolled back ${service.name}`);
  }

  async #remove(api: Api): Promise<void> {
    const { service } = (await this.#anyService(api)) ?? {};
    if (!service || !chance(this.#random, 0.7)) return;
    await api.removeService({ serviceId: service.id });
    this.#world.log.add("client", `removed ${service.name}`);
    this.#world.checker.acknowledged({ type: "removed", serviceId: service.id });
  }

  async #drain(api: Api): Promise<void> {
    const node = pick(this.#random, this.#world.nodes);
    const availability = chance(this.#random, 0.3) ? NodeSpec_Availability.PAUSE : NodeSpec_Availability.DRAIN;
    if (node) await this.#setAvailability(api, node.host.nodeId, availability);
  }

  async #activate(api: Api): Promise<void> {
    for (const { host } of this.#world.nodes) {
      await this.#setAvailability(api, host.nodeId, NodeSpec_Availability.ACTIVE);
    }
  }

  async #setAvailability(api: Api, nodeId: string, availability: NodeSpec_Availability): Promise<void> {
    const { nodes } = await api.listNodes({});
    const node = nodes.find(({ id }) => id === nodeId);
    if (!node?.spec || node.spec.availability === availability) return;
    await api.updateNode({ nodeId, version: node.meta?.version ?? 0n, spec: { ...node.spec, availability } });
    this.#world.log.add("client", `${node.description?.hostname} is ${NodeSpec_Availability[availability]}`);
  }

  async #anyService(api: Api): Promise<ServiceView | undefined> {
    return pick(this.#random, (await api.listServices({})).services);
  }

  #spec(name: string): SpecInit {
    const random = this.#random;
    const replicas = BigInt(integerBetween(random, 1, REPLICAS_MAX));
    if (chance(random, 0.15)) return this.#job(name, replicas);
    const port = { targetPort: 80, publishedPort: chance(random, 0.5) ? 0 : 8_000 + integerBetween(random, 0, 9) };
    return {
      name,
      mode: chance(random, 0.2)
        ? { mode: { case: "global", value: {} } }
        : { mode: { case: "replicated", value: { replicas } } },
      task: {
        container: { image: this.#image() },
        restart: { delay: durationFromMs(integerBetween(random, 0, 3_000)) },
        ...(chance(random, 0.5) ? { resources: { reservations: { memoryBytes: MEMORY_BYTES } } } : {}),
      },
      ...(chance(random, 0.4) ? { endpoint: { ports: [port] } } : {}),
      ...this.#updates(),
    };
  }

  #job(name: string, totalCompletions: bigint): SpecInit {
    const random = this.#random;
    const maxConcurrent = BigInt(integerBetween(random, 0, 3));
    return {
      name,
      mode: { mode: { case: "replicatedJob", value: { totalCompletions, maxConcurrent } } },
      task: {
        container: { image: chance(random, 0.85) ? `${this.#goodImage()}-once` : this.#image() },
        restart: { delay: durationFromMs(integerBetween(random, 0, 3_000)) },
      },
    };
  }

  #updates(): Pick<ServiceSpec, "update"> {
    const random = this.#random;
    const { START_FIRST, STOP_FIRST } = UpdateConfig_Order;
    const { PAUSE, CONTINUE, ROLLBACK } = UpdateConfig_FailureAction;
    return {
      update: {
        $typeName: "swarm.v1.UpdateConfig",
        parallelism: BigInt(integerBetween(random, 0, 3)),
        delay: durationFromMs(integerBetween(random, 0, 1_000)),
        monitor: durationFromMs(integerBetween(random, 0, 2_000)),
        maxFailureRatio: chance(random, 0.5) ? 0 : 0.5,
        order: chance(random, 0.3) ? START_FIRST : STOP_FIRST,
        failureAction: pick(random, [PAUSE, CONTINUE, ROLLBACK]) ?? PAUSE,
      },
    };
  }

  #goodImage(): string {
    this.#images += 1;
    return `app:${this.#images}`;
  }

  #image(): string {
    const image = this.#goodImage();
    if (chance(this.#random, 0.85)) return image;
    return `${image}-${pick(this.#random, ["crash", "missing", "once"])}`;
  }
}

function needsHelp({ spec, service }: ServiceView): boolean {
  const state = service?.updateStatus?.state;
  const paused = state === UpdateStatus_State.PAUSED || state === UpdateStatus_State.ROLLBACK_PAUSED;
  const good = isJob(spec) ? /^app:\d+-once$/ : /^app:\d+$/;
  return paused || !good.test(spec?.task?.container?.image ?? "");
}

function withNetwork(spec: SpecInit, target: string | undefined): SpecInit {
  const whole = create(ServiceSpecSchema, spec);
  if (target === undefined || !whole.task) return whole;
  return { ...whole, task: { ...whole.task, networks: [create(NetworkAttachmentConfigSchema, { target })] } };
}

function withReplicas(spec: ServiceSpec, replicas: number): ServiceSpec {
  if (spec.mode?.mode.case === "replicatedJob") {
    const value = { ...spec.mode.mode.value, totalCompletions: BigInt(replicas) };
    return { ...spec, mode: { ...spec.mode, mode: { case: "replicatedJob", value } } };
  }
  if (spec.mode?.mode.case !== "replicated") return spec;
  const value = { ...spec.mode.mode.value, replicas: BigInt(replicas) };
  return { ...spec, mode: { ...spec.mode, mode: { case: "replicated", value } } };
}

function withImage(spec: ServiceSpec, image: string): ServiceSpec {
  if (!spec.task?.container) return spec;
  return { ...spec, task: { ...spec.task, container: { ...spec.task.container, image } } };
}
