import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { NodeVolumesSchema, type Volume, VolumeSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { ServiceSpecSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { PurgeSet, volumeDefinitions } from "./volume-assignments.ts";

function viewOf(...volumes: readonly Volume[]) {
  const byName = new Map(volumes.map((volume) => [volume.name, volume]));
  return {
    volumes: new Map(volumes.map((volume) => [volume.id, volume])),
    byName: (_: string, name: string) => byName.get(name),
  };
}

function volume(name: string, options: Record<string, string>) {
  return create(VolumeSchema, { id: `id-${name}`, name, spec: { name, options } });
}

test("definitions of the volumes with options that mounts name, or may name", () => {
  const tmpfs = { type: "tmpfs", device: "tmpfs" };
  const view = viewOf(volume("plain", {}), volume("fast", tmpfs), volume("slot-1", tmpfs), volume("other", tmpfs));
  const mounts = ["plain", "fast", "none", "slot-{{.Task.Slot}}"].map((source) => ({ source, target: "/x" }));
  const spec = create(ServiceSpecSchema, { task: { container: { mounts } } });
  const names = volumeDefinitions(view as unknown as Parameters<typeof volumeDefinitions>[0], spec).map(
    ({ name }) => name,
  );
  expect(names).toEqual(["fast", "slot-1"]);
});

test("a deletion is told once per copy, and again for one that was made and removed since", () => {
  const purges = new PurgeSet();
  const told = (...volumes: [name: string, ms: number, removing: boolean][]) => {
    const copies = volumes.map(([name, ms, removing]) => ({ name, createdAt: timestampFromMs(ms), removing }));
    return purges
      .update(create(NodeVolumesSchema, { volumes: copies }))
      .map(({ item }) => item.case === "volume" && item.value.name);
  };
  expect(told(["a", 1, true], ["b", 1, false])).toEqual(["a"]);
  expect(told(["a", 1, true], ["b", 1, true])).toEqual(["b"]);
  expect(told(["a", 2, true], ["b", 1, true])).toEqual(["a"]);
  expect(told()).toEqual([]);
  expect(purges.update(undefined)).toEqual([]);
  expect(told(["b", 1, true])).toEqual(["b"]);
});
