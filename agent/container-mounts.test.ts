/** Goal: Docker's mounts in OCI words. Method: a table, and real directories for sources. */
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { create } from "@bufbuild/protobuf";
import { expect, onTestFinished, test } from "vitest";
import { Mount_Type, MountSchema } from "../proto/gen/swarm/v1/types_pb.js";
import { ensureMountSources, planMounts } from "./container-mounts.ts";
import { signalNumber } from "./stop-signal.ts";

const DIRECTORIES = { volumes: "/data/volumes", container: "/data/containers/x" };

function plan(init: Parameters<typeof create<typeof MountSchema>>[1], directories = DIRECTORIES) {
  return planMounts([create(MountSchema, { target: "/t", ...init })], directories);
}

test("kinds of mounts", () => {
  expect(plan({ type: Mount_Type.BIND, source: "/srv", readOnly: true })).toEqual([
    { mount: { kind: "bind", source: "/srv", target: "/t", readOnly: true, recursive: true }, make: false },
  ]);
  expect(plan({ type: Mount_Type.VOLUME, source: "data" })[0]).toMatchObject({
    mount: { kind: "volume", source: "/data/volumes/data" },
    make: true,
  });
  expect(plan({ type: Mount_Type.VOLUME })[0]).toMatchObject({ mount: { source: "/data/containers/x/volumes/0" } });
  expect(plan({ type: Mount_Type.TMPFS, tmpfsSizeBytes: 4096n, tmpfsMode: 0o700 })[0]?.mount).toEqual({
    kind: "tmpfs",
    target: "/t",
    readOnly: false,
    sizeBytes: 4096,
    mode: 0o700,
  });
  for (const source of ["../x", "a/b", ".", ".."]) expect(() => plan({ source })).toThrow("not a valid volume name");
  expect(() => plan({ source: "data", volumeDriver: "nfs" })).toThrow('volume driver "nfs" is not supported');
  expect(() => plan({ type: Mount_Type.BIND, source: "srv" })).toThrow("not an absolute path");
});

test("sources are checked or made", async () => {
  const volumes = await mkdtemp(`${tmpdir()}/swarm-volumes-`);
  onTestFinished(() => rm(volumes, { recursive: true }));
  const directories = { ...DIRECTORIES, volumes };
  await ensureMountSources(plan({ source: "data" }, directories));
  expect((await stat(`${volumes}/data`)).isDirectory()).toBe(true);
  const missing = plan({ type: Mount_Type.BIND, source: `${volumes}/none` });
  await expect(ensureMountSources(missing)).rejects.toThrow("bind source path does not exist");
  await ensureMountSources(plan({ type: Mount_Type.BIND, source: `${volumes}/none`, createSource: true }));
});

test("stop signals by name and number", () => {
  expect(["SIGTERM", "term", "15", "SIGQUIT", "SIGRTMIN+3", "RTMAX-1"].map(signalNumber)).toEqual([
    15, 15, 15, 3, 37, 63,
  ]);
  for (const text of ["", "0", "65", "SIGNOPE", "SIGRTMIN+99"])
    expect(() => signalNumber(text)).toThrow("does not exist");
});
