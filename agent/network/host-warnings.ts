/** What of the host's own settings stands in the way of its tasks' traffic: told, not changed. */
import type { Logger } from "../../common/base/logger.ts";
import { Wakeup } from "../../common/base/wakeup.ts";
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

/** The share of the connections the kernel tracks at most that is still no reason to warn: a fifth is left. */
const TRACKED_SHARE_MAX = 0.8;

/** One sentence for each, with what to do; empty when nothing stands in the way. */
export async function hostWarnings(options: HostWarningsOptions, signal: AbortSignal): Promise<readonly string[]> {
  return [...(await settingWarnings(options.sysctls)), ...(await firewallWarnings(options, signal))];
}

/** Four small files of /proc/sys are read. */
async function settingWarnings(sysctls: Sysctls): Promise<readonly string[]> {
  const warnings: string[] = [];
  // The kernel takes the greater of this and a device's own. Loose (2) does no harm: it lets these packets in, and what
  // comes from a task's link is judged strictly all the same, since such a link has no address of its own.
  if ((await sysctls.read("net/ipv4/conf/all/rp_filter")) === "1") {
    const why = "drops requests that come in by another node";
    warnings.push(`net.ipv4.conf.all.rp_filter=1 ${why}: run sysctl -w net.ipv4.conf.all.rp_filter=0`);
  }
  // Each network namespace has a count of its own; all of them share the limit. 0: there is none. Absent: nothing is tracked.
  const max = Number((await sysctls.read("net/netfilter/nf_conntrack_max")) ?? 0);
  const count = Number((await sysctls.read("net/netfilter/nf_conntrack_count")) ?? 0);
  if (max > 0 && count > max * TRACKED_SHARE_MAX) {
    // Without the count, which changes all the time: a warning is known by its words.
    const why = "is nearly reached, and then new connections are dropped without a word";
    warnings.push(
      `net.netfilter.nf_conntrack_max=${max} ${why}: run sysctl -w net.netfilter.nf_conntrack_max=${max * 2}`,
    );
  }
  return warnings;
}

/** Runs nft once, and once more for each chain that drops what is forwarded. */
async function firewallWarnings(options: HostWarningsOptions, signal: AbortSignal): Promise<readonly string[]> {
  const warnings: string[] = [];
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

/** Every so many looks, nft runs too: once a minute. */
const LOOKS_PER_FIREWALL = 12;
/** A warning counts as gone after so many looks without it, a minute: what swings about a limit is told once. */
const LOOKS_UNTIL_GONE = 12;

/** Tells the log of each warning once when it comes, and once when it has gone. To be asked every five seconds. */
export class HostWatch {
  readonly #options: HostWarningsOptions & { readonly logger: Logger };
  readonly #changed = new Wakeup();
  #looks = 0;
  #firewall: readonly string[] = [];
  /** The look at which each warning that was told was last there. */
  readonly #told = new Map<string, number>();

  constructor(options: HostWarningsOptions & { readonly logger: Logger }) {
    this.#options = options;
  }

  /** What is there now. */
  warnings(signal: AbortSignal): Promise<readonly string[]> {
    return hostWarnings(this.#options, signal);
  }

  /** Those that were told and are not gone. */
  get told(): readonly string[] {
    return [...this.#told.keys()];
  }

  /** The same, each time that changed, until the signal aborts. One reader. */
  async *changes(signal: AbortSignal): AsyncGenerator<readonly string[], never, undefined> {
    while (true) {
      await this.#changed.wait(signal);
      yield this.told;
    }
  }

  /** The first look is at everything, most of the others are cheap. */
  async look(signal: AbortSignal): Promise<void> {
    const { sysctls, logger } = this.#options;
    const look = this.#looks++;
    if (look % LOOKS_PER_FIREWALL === 0) this.#firewall = await firewallWarnings(this.#options, signal);
    for (const warning of [...(await settingWarnings(sysctls)), ...this.#firewall]) {
      if (!this.#told.has(warning)) {
        logger.warn({ warning }, "the host is in the way");
        this.#changed.wake();
      }
      this.#told.set(warning, look);
    }
    for (const [warning, last] of this.#told) {
      if (look - last < LOOKS_UNTIL_GONE) continue;
      this.#told.delete(warning);
      this.#changed.wake();
      logger.info({ warning }, "the host is no longer in the way");
    }
  }
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
