/**
 * Goal: volumes are made, listed and removed in Docker's words, and no data is deleted that somebody uses. Method: commands
 * whole, over a control plane whose nodes tell of volumes and delete what was removed.
 */
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, expect, test } from "vitest";
import { NodeVolumesSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeStatus_State, NodeStatusSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { type ControlPlane, startControlPlane } from "../control-plane.ts";
import { eventually } from "../eventually.ts";
import { runSwarmctl } from "../swarmctl.ts";

let plane: ControlPlane;
beforeAll(async () => {
  plane = await startControlPlane({ nodes: 2 });
});
afterAll(() => plane[Symbol.asyncDispose]());
const swarmctl = (line: string) => runSwarmctl(line.split(" "), { environment: { SWARM_HOST: plane.host } });
const lines = async (line: string) => (await swarmctl(line)).out.split("\n").filter(Boolean);

/** Plays that a node has exactly these volumes. */
async function tell(hostname: string, ...names: string[]): Promise<void> {
  const { view } = plane.store;
  const node = [...view.nodes.values()].find(({ description }) => description?.hostname === hostname);
  const volumes = names.map((name) => ({ name, createdAt: timestampFromMs(1_000), sizeBytes: 2_000_000n }));
  const object = create(NodeVolumesSchema, { nodeId: node?.id ?? "", volumes });
  const version = view.version("nodevolumes", object.nodeId);
  const proposal =
    version === undefined
      ? ({ type: "create", kind: "nodevolumes", object } as const)
      : ({ type: "update", kind: "nodevolumes", object, version } as const);
  await plane.store.commit([proposal], { signal: plane.signal });
}

/** Plays that a node is gone for good, as far as anybody knows. */
async function takeDown(hostname: string): Promise<void> {
  const node = [...plane.store.view.nodes.values()].find(({ description }) => description?.hostname === hostname);
  if (!node) throw new Error(`no ${hostname}`);
  const status = create(NodeStatusSchema, { state: NodeStatus_State.DOWN });
  const group = [
    { type: "delete", kind: "session", id: node.id },
    { type: "update", kind: "node", object: { ...node, status } },
  ] as const;
  const { conflicts } = await plane.store.commit([group], { signal: plane.signal });
  expect(conflicts).toEqual([]);
}

test("made, listed, inspected, removed", async () => {
  expect(await swarmctl("volume create --label tier=gold -o type=tmpfs -o device=tmpfs -o o=size=1m fast")).toEqual({
    code: 0,
    out: "fast\n",
    err: "",
  });
  const [random = ""] = await lines("volume create");
  expect(random).toMatch(/^[a-z0-9]{25}$/);
  expect(await lines("volume ls -q")).toEqual([random, "fast"].sort());
  expect(await lines("volume ls -q --filter label=tier=gold")).toEqual(["fast"]);
  const [shown] = JSON.parse((await swarmctl("volume inspect fast")).out);
  expect(shown).toMatchObject({
    Name: "fast",
    Driver: "local",
    Labels: { tier: "gold" },
    Options: { type: "tmpfs", device: "tmpfs", o: "size=1m" },
    Nodes: [],
  });
  expect(await swarmctl(`volume rm fast ${random} none`)).toEqual({
    code: 1,
    out: `fast\n${random}\n`,
    err: "swarmctl: no such volume: none\n",
  });
  expect(await swarmctl("volume rm -f none")).toMatchObject({ code: 0 });
  expect(await lines("volume ls -q")).toEqual([]);
});

test("made twice: the same is fine, another is not", async () => {
  expect(await swarmctl("volume create --label a=b twice")).toMatchObject({ code: 0 });
  expect(await swarmctl("volume create --label a=b twice")).toMatchObject({ code: 0, out: "twice\n" });
  expect(await swarmctl("volume create twice")).toMatchObject({
    code: 1,
    err: "swarmctl: volume twice exists with another driver, other options or labels\n",
  });
  await tell("node-1", "plain");
  expect(await swarmctl("volume create -o type=tmpfs -o device=tmpfs plain")).toMatchObject({
    code: 1,
    err: "swarmctl: volume plain exists on node-1, without options\n",
  });
  expect(await swarmctl("volume rm twice plain")).toMatchObject({ code: 0 });
});

test.each([
  ["volume create -d rexray x", 'driver: "rexray": volume drivers are not supported, only local is'],
  ["volume create -o type=nfs x", 'options: missing required option: "device"'],
  ["volume create -o size=1g x", 'options: "size": quotas of volumes are not supported'],
  ["volume create a/b", 'name: invalid volume name "a/b": letters, digits and _.-, at most 255'],
  [
    "volume create --name a b",
    "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
  ],
  ["volume create --scope multi --type block x", "--scope: cluster volumes (CSI) do not exist"],
  ["volume update --availability drain x", "swarmctl has no volume update: cluster volumes (CSI) do not exist"],
])("%s is refused", async (line, message) => {
  const { code, err } = await swarmctl(line);
  expect(code).toBe(1);
  expect(err).toContain(`swarmctl: ${message}`);
});

test("what is used stays, by name and by template, until the service is gone", async () => {
  await tell("node-1", "data", "slot-1", "slot-x");
  await swarmctl("service create -d --no-resolve-image --name db --mount source=data,target=/d demo/web:1");
  await swarmctl(
    "service create -d --no-resolve-image --name q --mount source=slot-{{.Task.Slot}},target=/d demo/web:1",
  );
  expect(await swarmctl("volume rm data slot-1")).toEqual({
    code: 1,
    out: "",
    err: "swarmctl: volume data is in use by service db\nswarmctl: volume slot-1 is in use by service q\n",
  });
  expect(await swarmctl("volume prune -a -f")).toMatchObject({ code: 0, out: "Total reclaimed space: 0B\n" });
  await swarmctl("service rm db q");
  await eventually(async () => expect(await swarmctl("volume rm data")).toMatchObject({ code: 0 }));
  expect(await lines("volume ls -q --filter dangling=true")).toEqual(["slot-1", "slot-x"]);
  expect(await swarmctl("volume prune -a -f")).toEqual({
    code: 0,
    out: "Deleted Volumes:\nslot-1\nslot-x\n\nTotal reclaimed space: 4MB\n",
    err: "",
  });
  expect(await lines("volume ls -q")).toEqual([]);
});

test("pruning is asked for", async () => {
  expect(await swarmctl("volume prune")).toEqual({
    code: 0,
    out: "Total reclaimed space: 0B\n",
    err: "swarmctl: anonymous volumes go with their tasks: --all removes unused volumes that have a name\n",
  });
  expect(await swarmctl("volume prune -a")).toMatchObject({ code: 2 });
});

test("a node that is down: its data is deleted when it is back, if that is what is wanted", async () => {
  await tell("node-1", "both");
  await tell("node-2", "both");
  await takeDown("node-2");
  expect(await swarmctl("volume rm both")).toEqual({
    code: 1,
    out: "",
    err: "swarmctl: volume both has data on node-2, which is down: with --force it is deleted there when the node is back\n",
  });
  expect(await swarmctl("volume prune -a -f")).toMatchObject({ code: 1, out: "Total reclaimed space: 0B\n" });
  expect(await swarmctl("volume rm --force both")).toMatchObject({ code: 0 });
  expect(await lines("volume ls -q")).toEqual([]);
  const [away] = [...plane.store.view.nodeVolumes.values()].filter(({ volumes }) => volumes.length > 0);
  expect(away?.volumes).toMatchObject([{ name: "both", removing: true }]);
});
