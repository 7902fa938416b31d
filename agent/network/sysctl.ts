import { readFile, writeFile } from "node:fs/promises";
import { errnoOf, SwarmError } from "../../common/base/error.ts";

/** Kernel parameters of the agent's own network namespace. Names with slashes: `net/ipv4/ip_forward`. */
export interface Sysctls {
  /** The value without its newline; undefined where the kernel has no such parameter. */
  read(name: string): Promise<string | undefined>;
  /** Throws a SwarmError that names the parameter. */
  write(name: string, value: string): Promise<void>;
}

/** /proc/sys. */
export const systemSysctls: Sysctls = {
  async read(name) {
    try {
      return (await readFile(`/proc/sys/${name}`, "utf8")).trim();
    } catch (reason) {
      if (errnoOf(reason) === "ENOENT") return undefined;
      throw SwarmError.wrap(`read sysctl ${name}`, reason, "permission_denied");
    }
  },
  async write(name, value) {
    try {
      await writeFile(`/proc/sys/${name}`, value);
    } catch (reason) {
      throw SwarmError.wrap(`set sysctl ${name} to ${value}`, reason, "permission_denied");
    }
  },
};
