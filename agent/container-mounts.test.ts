/** Goal: Docker's mounts in OCI words. Method: a table. */
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import type { TaskId } from "../common/base/id.ts";
import { Mount_Type, MountSchema, VolumeSpecSchema } from "../proto/gen/swarm/v1/types_pb.js";
import { planMounts } from "./container-mounts.ts";
import { signalNumber } from "./stop-signal.ts";
import { volumeUse } from "./volumes.ts";

const OPTIONS = {
  taskId: "t1" as TaskId,
  directories: { volumes: "/data/volumes", mounts: "/data/mounts", container: "/data/containers/t1" },
  definitions: [
    create(VolumeSpecSchema, { name: "shared", options: { type: "nfs", device: ":/export", o: "addr=10.0.0.1,ro" } }),
  ],
};

function plan(init: Parameters<typeof create<typeof MountSchema>>[1]) {
  return planMounts([create(MountSchema, { target: "/t", ...init })], OPTIONS);
}

test("bind mounts and tmpfs", () => {
  expect(plan({ type: Mount_Type.BIND, source: "/srv", readOnly: true })).toEqual([
    {
      kind: "bind",
      mount: { kind: "bind", source: "/srv", target: "/t", readOnly: true, recursive: true },
      make: false,
    },
  ]);
  expect(plan({ type: Mount_Type.TMPFS, tmpfsSizeBytes: 4096n, tmpfsMode: 0o700 })[0]?.mount).toEqual({
    kind: "tmpfs",
    target: "/t",
    readOnly: false,
    sizeBytes: 4096,
    mode: 0o700,
  });
  expect(() => plan({ type: Mount_Type.BIND, source: "srv" })).toThrow("not an absolute path");
});

test("plain volumes are directories, of the node or of the task", () => {
  expect(plan({ source: "data" })[0]).toMatchObject({
    mount: { kind: "volume", source: "/data/volumes/data" },
    volume: { name: "data", root: "/data/volumes/data", origin: { kind: "directory" }, copyOf: "/t" },
  });
  expect(plan({ source: "data", volumeNoCopy: true })[0]).toMatchObject({ volume: { copyOf: undefined } });
  const anonymous = plan({});
  expect(anonymous[0]).toMatchObject({
    mount: { source: "/data/containers/t1/volumes/0" },
    volume: { name: undefined },
  });
  expect(volumeUse(anonymous)).toEqual({ roots: [], parts: [] });
  for (const source of ["../x", "a/b", ".", ".."]) expect(() => plan({ source })).toThrow("not a valid volume name");
  expect(() => plan({ source: "data", volumeDriver: "nfs" })).toThrow('volume driver "nfs" is not supported');
});

test("options come from the mount, else from the volume that was made", () => {
  const [shared] = plan({ source: "shared" });
  expect(shared).toMatchObject({
    mount: { source: expect.stringMatching(/^\/data\/mounts\/[0-9a-f]{32}$/) },
    volume: {
      origin: {
        kind: "mount",
        filesystem: { type: "nfs", source: ":/export", options: ["addr=10.0.0.1"], attributes: ["ro"] },
      },
    },
  });
  const [own] = plan({ source: "shared", volumeOptions: { type: "tmpfs", device: "tmpfs", o: "size=1m" } });
  expect(own).toMatchObject({ volume: { origin: { filesystem: { type: "tmpfs", options: ["size=1m"] } } } });
  // Another definition under the same name is another volume.
  expect(own?.mount).not.toEqual(shared?.mount);
  expect(plan({ source: "web", volumeOptions: { type: "none", device: "/srv/web", o: "bind,ro" } })[0]).toMatchObject({
    mount: { source: "/srv/web", readOnly: true },
    volume: { origin: { kind: "host" }, copyOf: undefined },
  });
  expect(() => plan({ source: "data", volumeOptions: { type: "nfs" } })).toThrow(
    'mount /t: volume data: missing required option: "device"',
  );
});

test("a part of a volume is bound for the task first", () => {
  const planned = plan({ source: "data", volumeSubpath: "a/b" });
  expect(planned[0]).toMatchObject({
    mount: { source: "/data/mounts/t1-0" },
    volume: { root: "/data/volumes/data", part: { path: "a/b", place: "/data/mounts/t1-0" }, copyOf: undefined },
  });
  expect(volumeUse(planned)).toEqual({ roots: ["/data/volumes/data"], parts: ["/data/mounts/t1-0"] });
});

test("stop signals by name and number", () => {
  expect(["SIGTERM", "term", "15", "SIGQUIT", "SIGRTMIN+3", "RTMAX-1"].map(signalNumber)).toEqual([
    15, 15, 15, 3, 37, 63,
  ]);
  for (const text of ["", "0", "65", "SIGNOPE", "SIGRTMIN+99"])
    expect(() => signalNumber(text)).toThrow("does not exist");
});
