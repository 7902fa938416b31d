import { exchange, NETLINK, type Netlink } from "./netlink.ts";
import { decodeGeneration, getGeneration } from "./nfnetlink.ts";
import type { RuleLoader } from "./rule-loader.ts";
import type { RuleRecord } from "./rule-record.ts";
import { type RulesetBase, type RulesetState, ruleset, rulesetChange, rulesetRemoval, settled } from "./ruleset.ts";

/** What is known to be in the kernel: `state`, as long as the rules' generation is still `generation`. */
interface Loaded {
  readonly state: RulesetState;
  /** Undefined when somebody else's transaction came between, so that it must be loaded again to be sure. */
  readonly generation: number | undefined;
}

/**
 * Keeps our nftables table as it should be. Each transaction in a network namespace raises the generation of its
 * rules by one, so one small question tells whether anybody has touched them since; nothing is listed and compared.
 */
export class RuleTable {
  readonly #loader: RuleLoader;
  readonly #netlink: Netlink;
  readonly #record: RuleRecord | undefined;
  #loaded: Loaded | undefined;
  /** The state that the record says. */
  #recorded: RulesetState | undefined;

  /** With a record, what an earlier agent loaded counts as loaded. */
  constructor(loader: RuleLoader, netlink: Netlink, record: RuleRecord | undefined) {
    this.#loader = loader;
    this.#netlink = netlink;
    this.#record = record;
    this.#loaded = record?.read();
    this.#recorded = this.#loaded?.state;
  }

  /**
   * Makes the table say `state`: nothing where it already does, only what differs where nobody has touched it since,
   * else the whole of it. Returns whether somebody had touched it.
   */
  async apply(state: RulesetState, signal: AbortSignal): Promise<{ readonly repaired: boolean }> {
    const loaded = this.#loaded;
    if (loaded !== undefined && loaded.generation !== undefined && sameBase(loaded.state, state)) {
      if ((await this.#generation(signal)) === loaded.generation) {
        const next = settled(loaded.state, state);
        const change = rulesetChange(loaded.state, next);
        if (change !== "") await this.#load(change, next, signal);
        return { repaired: false };
      }
    }
    await this.#load(ruleset(state), state, signal);
    return { repaired: loaded !== undefined };
  }

  /**
   * Whether the kernel has a table of this name, from an earlier run of the agent: it serves the tasks that outlived
   * the agent, and is left alone until they are known.
   */
  async exists(table: string, signal: AbortSignal): Promise<boolean> {
    const chains = await this.#loader.baseChains(signal);
    return chains.some((chain) => chain.family === "ip" && chain.table === table);
  }

  /** Records what is loaded, if it has changed since. Throws `resource_exhausted` when it cannot be written. */
  remember(): void {
    const loaded = this.#loaded;
    if (this.#record === undefined || loaded?.generation === undefined || loaded.state === this.#recorded) return;
    this.#record.write({ state: loaded.state, generation: loaded.generation });
    this.#recorded = loaded.state;
  }

  async remove(base: Pick<RulesetBase, "table" | "ipv6">, signal: AbortSignal): Promise<void> {
    this.#loaded = undefined;
    await this.#loader.load(rulesetRemoval(base), signal);
  }

  async #load(script: string, state: RulesetState, signal: AbortSignal): Promise<void> {
    this.#loaded = undefined;
    const before = await this.#generation(signal);
    await this.#loader.load(script, signal);
    const after = await this.#generation(signal);
    const alone = before !== undefined && after === (before + 1) >>> 0;
    this.#loaded = { state, generation: alone ? after : undefined };
  }

  async #generation(signal: AbortSignal): Promise<number | undefined> {
    const request = { protocol: NETLINK.NETFILTER, message: getGeneration(), label: "ask for the rules' generation" };
    return decodeGeneration(await exchange(this.#netlink, request, signal));
  }
}

function sameBase(one: RulesetState, other: RulesetState): boolean {
  return baseKey(one) === baseKey(other);
}

function baseKey({ table, device, host, group, pool, vxlan, linkLocal, ipv6, encrypted }: RulesetBase): string {
  const { address, length } = pool;
  const { port, id } = vxlan;
  return JSON.stringify([table, device, host, group, address, length, port, id, linkLocal, ipv6, encrypted]);
}
