/** File systems of other hosts, as the kernel wants them: mount(8)'s helpers look names up, mount(2) does not. */
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { SwarmError } from "../common/base/error.ts";
import type { HostFilesystem } from "./runtime/runner.ts";

/** Where a file system names its host, and the option that has its address. */
const REMOTE: Readonly<Record<string, { readonly device: RegExp; readonly option: string }>> = {
  nfs: { device: /^(?:\[([0-9a-fA-F:]+)\]|([^:/]+)):/, option: "addr" },
  nfs4: { device: /^(?:\[([0-9a-fA-F:]+)\]|([^:/]+)):/, option: "addr" },
  cifs: { device: /^\/\/(?:\[([0-9a-fA-F:]+)\]|([^/]+))\//, option: "ip" },
  smb3: { device: /^\/\/(?:\[([0-9a-fA-F:]+)\]|([^/]+))\//, option: "ip" },
};

/**
 * The file system with its host's address in place of a name, from its options or its device.
 * @throws unavailable: the name cannot be looked up.
 */
export async function withAddress(filesystem: HostFilesystem, find: typeof findAddress): Promise<HostFilesystem> {
  const remote = REMOTE[filesystem.type];
  if (!remote) return filesystem;
  const names = [remote.option, "addr"];
  const given = filesystem.options.find((option) => names.some((name) => option.startsWith(`${name}=`)));
  const [, ipv6, hostname] = remote.device.exec(filesystem.source) ?? [];
  const host = given?.slice(given.indexOf("=") + 1) ?? ipv6 ?? hostname;
  if (host === undefined || host === "") return filesystem;
  const address = isIP(host) === 0 ? await find(host) : host;
  const others = filesystem.options.filter((option) => option !== given);
  return { ...filesystem, options: [...others, `${remote.option}=${address}`] };
}

/** By the host's resolver. */
export async function findAddress(host: string): Promise<string> {
  try {
    return (await lookup(host)).address;
  } catch (reason) {
    throw SwarmError.wrap(`look up ${host}`, reason, "unavailable");
  }
}
