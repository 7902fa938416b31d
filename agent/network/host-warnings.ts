/** What of the host's own settings stands in the way of its tasks' traffic: told, not changed. */
import type { BaseChain, RuleLoader } from "./rule-loader.ts";
import type { Sysctls } from "./sysctl.ts";

/** What is read. */
export interface HostWarningsOptions {
  readonly rules: RuleLoader;
  readonly sysctls: Sysctls;
  /** The fabric's device. */
  readonly device: string;
  /** The link group of the fabric's veths. */
  readonly group: number;
}

/** One sentence for each, with what to do; empty when nothing stands in the way. */
export async function hostWarnings(options: HostWarningsOptions, signal: AbortSignal): Promise<readonly string[]> {
  const warnings: string[] = [];
  // The kernel takes the greater of this and a device's own. Loose (2) does no harm: it lets these packets in, and what
  // comes from a task's link is judged strictly all the same, since such a link has no address of its own.
  if ((await options.sysctls.read("net/ipv4/conf/all/rp_filter")) === "1") {
    const why = "drops requests that come in by another node";
    warnings.push(`net.ipv4.conf.all.rp_filter=1 ${why}: run sysctl -w net.ipv4.conf.all.rp_filter=0`);
  }
  for (const chain of await options.rules.baseChains(signal)) {
    if (!dropsForwarded(chain)) continue;
    const rules = await options.rules.chain(chain, signal);
    const missing = remedies(options).filter((rule) => !rules.includes(rule));
    if (missing.length === 0) continue;
    const { family, table, name } = chain;
    const commands = missing.map((rule) => `nft 'insert rule ${family} ${table} ${name} ${rule}'`);
    const what = `chain ${name} of table ${family} ${table} drops forwarded packets`;
    warnings.push(`${what}: run ${commands.join(" && ")}`);
  }
  return warnings;
}

function dropsForwarded({ family, hook, policy }: BaseChain): boolean {
  return (family === "ip" || family === "inet") && hook === "forward" && policy === "drop";
}

/**
 * What lets the traffic of tasks through, by the fabric and by the encrypted one (`swarm0e`). Our own table accepts it, but
 * cannot overrule another's drop.
 */
function remedies({ group, device }: HostWarningsOptions): readonly string[] {
  const links = [`iifgroup ${group}`, `oifgroup ${group}`, `iifname "${device}*"`, `oifname "${device}*"`];
  return links.map((link) => `${link} accept`);
}
