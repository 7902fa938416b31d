import { readFile } from "node:fs/promises";
import { errnoOf, SwarmError } from "../../common/base/error.ts";
import { isStubResolver, RESOLV_CONF, RESOLVED_CONF } from "./resolver.ts";

/** The host's files, kept in memory so that `attach` waits for no disk; `reconcile` reads them again. */
export interface HostFiles {
  readonly resolvConf: string;
  /** The resolv.conf that names real servers: another one where systemd-resolved's stub stands in the first. */
  readonly reachable: string;
  readonly hosts: string;
}

/** Reads them; one that is missing is empty. */
export async function readHostFiles(): Promise<HostFiles> {
  const resolvConf = await readText(RESOLV_CONF);
  const reachable = isStubResolver(resolvConf) ? (await readText(RESOLVED_CONF)) || resolvConf : resolvConf;
  return { resolvConf, reachable, hosts: await readText("/etc/hosts") };
}

/** A file's text, empty when there is none. */
async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (reason) {
    if (errnoOf(reason) === "ENOENT") return "";
    throw SwarmError.wrap(`read ${path}`, reason, "permission_denied");
  }
}
