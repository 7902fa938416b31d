/** Goal: the options that people write for Docker's local driver mean the same here. Method: tables. */
import { expect, test } from "vitest";
import { isRemote, readVolumeOptions } from "./volume-options.ts";

test.each([
  [{}, { kind: "directory" }],
  [
    { type: "tmpfs", device: "tmpfs", o: "size=100m,uid=1000" },
    { kind: "mount", type: "tmpfs", device: "tmpfs", options: ["size=100m", "uid=1000"], attributes: [] },
  ],
  [
    { type: "none", device: "/srv/data", o: "bind" },
    { kind: "bind", device: "/srv/data", readOnly: false, recursive: false },
  ],
  [
    { device: "/srv", o: "rbind,ro" },
    { kind: "bind", device: "/srv", readOnly: true, recursive: true },
  ],
  [
    { type: "nfs", device: ":/export", o: "addr=10.0.0.1,rw,nfsvers=4,nosuid,noatime" },
    {
      kind: "mount",
      type: "nfs",
      device: ":/export",
      options: ["addr=10.0.0.1", "nfsvers=4"],
      attributes: ["nosuid", "noatime"],
    },
  ],
])("%j", (options, source) => {
  const read = readVolumeOptions(options);
  expect(read).toEqual({ ok: true, value: source });
});

test.each([
  [{ size: "10g" }, '"size": quotas of volumes are not supported'],
  [{ typ: "nfs" }, 'invalid option: "typ" (type, device, o)'],
  [{ type: "nfs" }, 'missing required option: "device"'],
  [{ device: "/dev/sdb1" }, 'missing required option: "type"'],
  [{ type: "none", device: "/srv" }, 'type: "none" is not a file system (with o=bind it is a directory)'],
  [{ type: "none", device: "srv", o: "bind" }, 'device: "srv" is not an absolute path'],
  [{ type: "ext4", device: "/srv", o: "bind" }, 'type: "ext4" with o=bind: must be none'],
  [{ type: "none", device: "/srv", o: "bind,size=1m" }, 'o: "size=1m" cannot be had with bind'],
  [{ type: "tmpfs", device: "tmpfs", o: "remount" }, 'o: "remount" is not an option of a volume'],
  [{ type: "../x", device: "a" }, 'type: "../x" is not a file system'],
])("%j is refused", (options, problem) => {
  expect(readVolumeOptions(options as unknown as Record<string, string>)).toEqual({ ok: false, problem });
});

test("what lies on other hosts", () => {
  const remote = (options: Record<string, string>) => {
    const read = readVolumeOptions(options);
    return read.ok && isRemote(read.value);
  };
  expect(remote({ type: "nfs4", device: ":/x", o: "addr=1.2.3.4" })).toBe(true);
  expect(remote({ type: "tmpfs", device: "tmpfs" })).toBe(false);
  expect(remote({})).toBe(false);
});
