/** A node as the scheduler sees it: what it is, and what its tasks already take. */
import type { Node } from "../../proto/gen/swarm/v1/objects_pb.js";

/** A service whose tasks failed this often on a node lately is placed there last; SwarmKit's figures. */
export const FAILURES_MAX = 5;
export const FAILURE_WINDOW_MS = 5 * 60_000;

/** Mutable accounting of one node; only ClusterState changes it. */
export class NodeInfo {
  readonly id: string;
  node: Node;
  /** READY and open for new tasks. */
  open = false;
  totalNanoCpus = 0;
  totalMemoryBytes = 0;
  usedNanoCpus = 0;
  usedMemoryBytes = 0;
  /** Tasks that should run here, of all services. */
  taskCount = 0;
  /** The same by service id; a service without tasks here has no entry. */
  readonly services = new Map<string, number>();
  /** Host-mode ports in use, "tcp/80" → by how many tasks. */
  readonly hostPorts = new Map<string, number>();
  /** When tasks of a service failed here, newest last; at most FAILURES_MAX of them. */
  readonly failures = new Map<string, number[]>();
  /** The number of the last placement run that looked at this node: spares a set per run. */
  seenInRun = 0;

  constructor(node: Node) {
    this.id = node.id;
    this.node = node;
  }

  serviceCount(serviceId: string): number {
    return this.services.get(serviceId) ?? 0;
  }

  /** Whether the service fails here again and again. */
  isFailing(serviceId: string, nowMs: number): boolean {
    const failures = this.failures.get(serviceId);
    const oldest = failures?.[0];
    return (
      failures !== undefined &&
      oldest !== undefined &&
      failures.length >= FAILURES_MAX &&
      nowMs - oldest < FAILURE_WINDOW_MS
    );
  }

  recordFailure(serviceId: string, atMs: number): void {
    const failures = this.failures.get(serviceId) ?? [];
    failures.push(atMs);
    if (failures.length > FAILURES_MAX) failures.shift();
    this.failures.set(serviceId, failures);
  }
}

/** Adds `by` to the count of `key` and drops it at zero. */
export function addCount(counts: Map<string, number>, key: string, by: number): void {
  const next = (counts.get(key) ?? 0) + by;
  if (next > 0) counts.set(key, next);
  else counts.delete(key);
}
