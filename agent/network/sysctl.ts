import { readFile, writeFile } from "node:fs/promises";
import { errnoOf, SwarmError } from "../../common/base/error.ts";
import type { Logger } from "../../common/base/logger.ts";

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

/**
 * Makes a device of the fabric take all that comes, without a reverse path filter, and send no redirects: a task would be
 * told to speak to another host itself, which it cannot.
 */
export async function quietLink(sysctls: Sysctls, name: string): Promise<void> {
  await sysctls.write(`net/ipv4/conf/${name}/send_redirects`, "0");
  await sysctls.write(`net/ipv4/conf/${name}/rp_filter`, "0");
}

/**
 * How long a connection whose client has said all that it has to say is remembered, in seconds: its server may still be at
 * work. The kernel's own 60 s are too few; kube-proxy takes as many as this.
 */
const HALF_CLOSED_S = 3_600;

/** Where the kernel has it: from the first rule that needs connections tracked. */
const HALF_CLOSED = "net/netfilter/nf_conntrack_tcp_timeout_close_wait";

interface HostSettings {
  readonly sysctls: Sysctls;
  readonly logger: Logger;
}

/** Turns IPv4 forwarding on, and lets half-closed connections wait. Both stays so: others may come to need it. */
export async function tuneHost(settings: HostSettings): Promise<void> {
  await turnForwardingOn(settings);
  await letHalfClosedWait(settings);
}

async function letHalfClosedWait({ sysctls, logger }: HostSettings): Promise<void> {
  const before = await sysctls.read(HALF_CLOSED);
  if (before === undefined || Number(before) >= HALF_CLOSED_S) return;
  const setting = { sysctl: HALF_CLOSED.replaceAll("/", "."), before, value: HALF_CLOSED_S };
  try {
    await sysctls.write(HALF_CLOSED, String(HALF_CLOSED_S));
    logger.info(setting, "half-closed connections may wait");
  } catch (reason) {
    // All else works without.
    if (!(reason instanceof SwarmError)) throw reason;
    logger.debug({ ...setting, err: reason }, "half-closed connections are not let wait");
  }
}

async function turnForwardingOn({ sysctls, logger }: HostSettings): Promise<void> {
  if ((await sysctls.read("net/ipv4/ip_forward")) === "1") return;
  await sysctls.write("net/ipv4/ip_forward", "1");
  logger.info({ sysctl: "net.ipv4.ip_forward", value: 1 }, "ip forwarding turned on");
}
