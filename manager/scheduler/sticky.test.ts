import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { NodeSchema, NodeVolumesSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import {
  Mount_Type,
  NodeSpec_Availability,
  NodeStatus_State,
  type ServiceSpec,
  ServiceSpecSchema,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { ClusterState } from "./cluster-state.ts";
import { requirementsOf } from "./requirements.ts";
import { heldVolumes, placeWithVolumes, stickySources, VolumeIndex } from "./sticky.ts";

interface MountFixture {
  readonly source: string;
  readonly type?: Mount_Type;
  readonly volumeSticky?: boolean;
}

function specOf(replicas: number, ...mounts: readonly MountFixture[]): ServiceSpec {
  return create(ServiceSpecSchema, {
    name: "db",
    mode: { mode: { case: "replicated", value: { replicas: BigInt(replicas) } } },
    task: { container: { mounts: mounts.map((mount) => ({ type: Mount_Type.VOLUME, target: "/data", ...mount })) } },
  });
}

describe("which volumes a task follows", () => {
  test.each<readonly [string, number, MountFixture, boolean]>([
    ["the plain volume of a single replica", 1, { source: "data" }, true],
    ["a plain volume that replicas share", 2, { source: "data" }, false],
    ["the same when the mount says so", 2, { source: "data", volumeSticky: true }, true],
    ["a single replica's when the mount says otherwise", 1, { source: "data", volumeSticky: false }, false],
    ["one per slot", 3, { source: "data-{{.Task.Slot}}" }, true],
    ["one per task", 1, { source: "data-{{.Task.ID}}" }, false],
    ["one per node", 1, { source: "data-{{.Node.Hostname}}" }, false],
    ["an anonymous volume", 1, { source: "" }, false],
    ["a bind mount", 1, { source: "/data", type: Mount_Type.BIND }, false],
  ])("%s", (_, replicas, mount, isFollowed) => {
    expect(stickySources(specOf(replicas, mount))).toEqual(isFollowed ? [mount.source] : []);
  });
});

interface NodeFixture {
  readonly volumes?: readonly string[];
  readonly state?: NodeStatus_State;
  readonly availability?: NodeSpec_Availability;
}

/** Where slot 2 of a service with these mounts goes. */
function place(nodes: Readonly<Record<string, NodeFixture>>, spec: ServiceSpec): string {
  const state = new ClusterState();
  const volumes = new VolumeIndex();
  for (const [id, node] of Object.entries(nodes)) {
    const { state: status = NodeStatus_State.READY, availability = NodeSpec_Availability.ACTIVE } = node;
    state.setNode(
      create(NodeSchema, { id, description: { hostname: id }, spec: { availability }, status: { state: status } }),
    );
    const names = node.volumes ?? [];
    volumes.replace(undefined, create(NodeVolumesSchema, { nodeId: id, volumes: names.map((name) => ({ name })) }));
  }
  const requirements = requirementsOf({ serviceId: "s", spec, ports: [], platforms: [], encrypted: false });
  const held = heldVolumes({ serviceId: "s", slot: 2 }, requirements, volumes, state);
  if (held.length === 0) return "anywhere";
  const { info, explanation } = placeWithVolumes(held, requirements, 0);
  return info?.id ?? explanation;
}

const DATA = { volumes: ["data"] };
const DOWN = { state: NodeStatus_State.DOWN };
const DRAINED = { availability: NodeSpec_Availability.DRAIN };

describe("where it goes", () => {
  const plain = specOf(1, { source: "data" });
  test.each<readonly [string, Readonly<Record<string, NodeFixture>>, ServiceSpec, string]>([
    ["nobody has the volume", { a: {}, b: {} }, plain, "anywhere"],
    ["one has it", { a: {}, b: DATA }, plain, "b"],
    ["two have it, one is down", { a: { ...DATA, ...DOWN }, b: DATA }, plain, "b"],
    [
      "the slot's own",
      { a: { volumes: ["v-1"] }, b: { volumes: ["v-2"] } },
      specOf(2, { source: "v-{{.Task.Slot}}" }),
      "b",
    ],
    [
      "its node is down",
      { a: {}, b: { ...DATA, ...DOWN } },
      plain,
      "no suitable node (volume data is on b, which is down)",
    ],
    [
      "drained",
      { a: {}, b: { ...DATA, ...DRAINED } },
      plain,
      "no suitable node (volume data is on b, which is drained)",
    ],
    [
      "both of its nodes cannot",
      { a: { ...DATA, ...DOWN }, b: { ...DATA, ...DRAINED } },
      plain,
      "no suitable node (volume data is on a, which is down; and on b, which is drained)",
    ],
    [
      "two volumes apart",
      { a: DATA, b: { volumes: ["log"] } },
      specOf(1, { source: "data" }, { source: "log" }),
      "no suitable node (volume data is on a, volume log is on b: no node has all of them)",
    ],
  ])("%s", (_, nodes, spec, expected) => {
    expect(place(nodes, spec)).toBe(expected);
  });

  test("a volume that a node no longer has holds nobody", () => {
    const index = new VolumeIndex();
    const before = create(NodeVolumesSchema, { nodeId: "a", volumes: [{ name: "data" }] });
    index.replace(undefined, before);
    index.replace(before, create(NodeVolumesSchema, { nodeId: "a" }));
    expect([...index.nodesWith("data")]).toEqual([]);
  });
});
