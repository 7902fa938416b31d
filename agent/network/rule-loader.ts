/** The one place that runs `nft`: once per change of the whole node, never once per container. */
import { spawn } from "node:child_process";
import { errnoOf, SwarmError } from "../../common/base/error.ts";

/** A base chain of the host's ruleset, ours or not. */
export interface BaseChain {
  readonly family: string;
  readonly table: string;
  readonly name: string;
  readonly hook: string;
  readonly policy: string;
}

/** Carries rulesets into the kernel. */
export interface RuleLoader {
  /** Runs one transaction: all of `script` or nothing. Throws `failed_precondition` with nft's own words. */
  load(script: string, signal: AbortSignal): Promise<void>;
  /** The base chains of all tables. */
  baseChains(signal: AbortSignal): Promise<readonly BaseChain[]>;
  /** A chain's rules, as nft writes them. */
  chain(chain: Pick<BaseChain, "family" | "table" | "name">, signal: AbortSignal): Promise<string>;
}

/** An nft that says nothing for this long is stuck; a ruleset of 2,500 ports takes a fraction of a second. */
const NFT_TIMEOUT_MS = 20_000;
/** More output than this is not read: the list of base chains is a few KiB. */
const OUTPUT_BYTES_MAX = 1 << 20;

/** The RuleLoader that runs Debian's `nft`, or another command that behaves as it does. */
export class NftRuleLoader implements RuleLoader {
  readonly #command: string;

  constructor(command = "nft") {
    this.#command = command;
  }

  async load(script: string, signal: AbortSignal): Promise<void> {
    await this.#run(["-f", "-"], script, signal);
  }

  async baseChains(signal: AbortSignal): Promise<readonly BaseChain[]> {
    return decodeBaseChains(await this.#run(["-j", "list", "chains"], "", signal));
  }

  chain({ family, table, name }: Pick<BaseChain, "family" | "table" | "name">, signal: AbortSignal): Promise<string> {
    // Numeric: link groups as numbers.
    return this.#run(["-n", "list", "chain", family, table, name], "", signal);
  }

  async #run(args: readonly string[], input: string, signal: AbortSignal): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const child = spawn(this.#command, args, { signal, timeout: NFT_TIMEOUT_MS, stdio: ["pipe", "pipe", "pipe"] });
    let output = "";
    let errors = "";
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
      if (output.length < OUTPUT_BYTES_MAX) output += chunk;
    });
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
      if (errors.length < OUTPUT_BYTES_MAX) errors += chunk;
    });
    // EPIPE when nft ended early: its exit status says why.
    child.stdin.on("error", () => {});
    child.stdin.end(input);
    child.on("error", (reason) => reject(startFailure(this.#command, reason)));
    child.on("close", (code, killedBy) => {
      if (code === 0) resolve(output);
      else reject(new SwarmError("failed_precondition", `nft: ${firstLine(errors) || (killedBy ?? `exit ${code}`)}`));
    });
    return promise;
  }
}

/** Reads `nft -j list chains`. Throws `data_loss` when it is not the JSON of libnftables-json(5). */
export function decodeBaseChains(json: string): readonly BaseChain[] {
  let document: unknown;
  try {
    document = JSON.parse(json);
  } catch (reason) {
    throw SwarmError.wrap("read nft's list of chains", reason, "data_loss");
  }
  const entries = field(document, "nftables");
  if (!Array.isArray(entries)) throw new SwarmError("data_loss", "read nft's list of chains: no list in it");
  return entries.flatMap((entry: unknown) => {
    const chain = field(entry, "chain");
    const hook = field(chain, "hook");
    if (typeof hook !== "string") return [];
    return {
      family: String(field(chain, "family")),
      table: String(field(chain, "table")),
      name: String(field(chain, "name")),
      hook,
      policy: String(field(chain, "policy") ?? "accept"),
    };
  });
}

function field(value: unknown, name: string): unknown {
  if (typeof value !== "object" || value === null) return undefined;
  return Object.entries(value).find(([key]) => key === name)?.[1];
}

function startFailure(name: string, reason: unknown): SwarmError {
  // EACCES: a folder of PATH that this user may not enter stands before the end of the search.
  if (errnoOf(reason) !== "ENOENT" && errnoOf(reason) !== "EACCES") return SwarmError.wrap(`run ${name}`, reason);
  return new SwarmError("failed_precondition", `run ${name}: not installed (apt-get install nftables)`, {
    cause: reason,
  });
}

function firstLine(output: string): string {
  return output.trim().split("\n", 1)[0] ?? "";
}
