import { expect, test } from "vitest";
import type { HostFilesystem } from "./runtime/runner.ts";
import { withAddress } from "./volume-mount.ts";

const find = async (host: string) => `addr-of-${host}`;
const filesystem = (type: string, source: string, options: readonly string[] = []): HostFilesystem => ({
  ...{ type, source, options },
  attributes: [],
});

test.each([
  ["nfs", ":/export", ["addr=10.0.0.1", "nfsvers=4"], ["nfsvers=4", "addr=10.0.0.1"]],
  ["nfs", ":/export", ["addr=files.local"], ["addr=addr-of-files.local"]],
  ["nfs4", "files.local:/export", [], ["addr=addr-of-files.local"]],
  ["nfs", "[fd00::1]:/export", [], ["addr=fd00::1"]],
  ["cifs", "//files/share", ["username=u"], ["username=u", "ip=addr-of-files"]],
  ["cifs", "//files/share", ["addr=10.0.0.2"], ["ip=10.0.0.2"]],
  ["tmpfs", "tmpfs", ["size=1m"], ["size=1m"]],
  ["nfs", "nonsense", [], []],
])("%s %s %j", async (type, source, options, expected) => {
  expect((await withAddress(filesystem(type, source, options), find)).options).toEqual(expected);
});
