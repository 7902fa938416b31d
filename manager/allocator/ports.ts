/** Which published ports a service gets: its wishes, and for port 0 a free one that it then keeps. */
import { create } from "@bufbuild/protobuf";
import { DYNAMIC_PORT_MAX, DYNAMIC_PORT_MIN } from "../../common/model/defaults.ts";
import { hostAddress } from "../../common/model/ports.ts";
import {
  type PortConfig,
  PortConfig_Protocol,
  PortConfig_PublishMode,
  PortConfigSchema,
} from "../../proto/gen/swarm/v1/types_pb.js";

/** "TCP/8080", "TCP/8080@127.0.0.1": published ports of different protocols, or addresses, do not meet. */
export function portKey(port: PortConfig): string {
  const address = hostAddress(port);
  return `${PortConfig_Protocol[port.protocol]}/${port.publishedPort}${address === "" ? "" : `@${address}`}`;
}

/** Under what others may hold it: as it is, or on all addresses. A port on all meets one on a single address at its node. */
function keysOf(port: PortConfig): readonly string[] {
  return [portKey(port), portKey({ ...port, hostIp: "" })];
}

/** The ports as they will be, or which wish another service already has. */
export type PortAllocation =
  | { readonly ok: true; readonly ports: readonly PortConfig[] }
  | { readonly ok: false; readonly problem: string };

/**
 * Allocates `wanted`. `before` are the service's ports so far: an automatic port that is still wanted keeps its number.
 * `takenBy` names the other service that holds a port.
 */
export function allocatePorts(
  wanted: readonly PortConfig[],
  before: readonly PortConfig[],
  takenBy: (key: string) => string | undefined,
): PortAllocation {
  const own = new Set<string>();
  const ports: PortConfig[] = [];
  for (const port of wanted) {
    if (port.publishedPort === 0) continue;
    const ingress = port.publishMode === PortConfig_PublishMode.INGRESS;
    const holder = ingress ? firstHolder(port, takenBy) : undefined;
    if (holder !== undefined) {
      return {
        ok: false,
        problem: `port ${port.publishedPort} is already in use by service ${holder} as an ingress port`,
      };
    }
    own.add(portKey(port));
    ports.push(port);
  }
  for (const port of wanted) {
    if (port.publishedPort !== 0) continue;
    const free = (number: number) => {
      const candidate = { ...port, publishedPort: number };
      return !keysOf(candidate).some((key) => own.has(key)) && firstHolder(candidate, takenBy) === undefined;
    };
    const kept = before.find(
      (each) => sameTarget(each, port) && isDynamic(each.publishedPort) && free(each.publishedPort),
    );
    const number = kept?.publishedPort ?? firstFree(free);
    if (number === undefined) {
      return { ok: false, problem: `no free port between ${DYNAMIC_PORT_MIN} and ${DYNAMIC_PORT_MAX}` };
    }
    const allocated = create(PortConfigSchema, { ...port, publishedPort: number });
    own.add(portKey(allocated));
    ports.push(allocated);
  }
  return { ok: true, ports };
}

function firstHolder(port: PortConfig, takenBy: (key: string) => string | undefined): string | undefined {
  for (const key of keysOf(port)) {
    const holder = takenBy(key);
    if (holder !== undefined) return holder;
  }
  return undefined;
}

function sameTarget(left: PortConfig, right: PortConfig): boolean {
  return (
    left.targetPort === right.targetPort &&
    left.protocol === right.protocol &&
    left.publishMode === right.publishMode &&
    hostAddress(left) === hostAddress(right)
  );
}

function isDynamic(port: number): boolean {
  return port >= DYNAMIC_PORT_MIN && port <= DYNAMIC_PORT_MAX;
}

function firstFree(free: (number: number) => boolean): number | undefined {
  for (let number = DYNAMIC_PORT_MIN; number <= DYNAMIC_PORT_MAX; number++) if (free(number)) return number;
  return undefined;
}
