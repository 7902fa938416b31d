/**
 * What an agent remembers of its table beyond its own life, so that the next one need not load it again: the rules'
 * generation tells the rest. It is a hint: without it, or with one that is old, the whole table is loaded.
 */
import { createHash } from "node:crypto";
import { readFileSync, readlinkSync, renameSync, writeFileSync } from "node:fs";
import { deserialize, serialize } from "node:v8";
import { SwarmError } from "../../common/base/error.ts";
import { type RulesetState, ruleset } from "./ruleset.ts";

/** What the kernel had, as long as its rules are of this generation. */
export interface RecordedRules {
  readonly state: RulesetState;
  readonly generation: number;
}

/** A record holds where the kernel is the same, the network namespace is, and this program would write the same rules. */
interface Recorded extends RecordedRules {
  readonly kernel: string;
  readonly rules: string;
}

/** Keeps the record in a file. */
export class RuleRecord {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  /** The last record; undefined when there is none that holds. */
  read(): RecordedRules | undefined {
    try {
      const { state, generation, kernel, rules } = deserialize(readFileSync(this.#path)) as Recorded;
      return kernel === thisKernel() && rules === digest(state) ? { state, generation } : undefined;
    } catch {
      // None, a broken one, or one of another version: as good as none.
      return undefined;
    }
  }

  /** Replaces the record. Throws `resource_exhausted` when the file system refuses. */
  write({ state, generation }: RecordedRules): void {
    const recorded: Recorded = { state, generation, kernel: thisKernel(), rules: digest(state) };
    try {
      writeFileSync(`${this.#path}.new`, serialize(recorded), { mode: 0o600 });
      renameSync(`${this.#path}.new`, this.#path);
    } catch (reason) {
      throw SwarmError.wrap(`write ${this.#path}`, reason, "resource_exhausted");
    }
  }
}

function thisKernel(): string {
  const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  return `${boot} ${readlinkSync("/proc/self/ns/net")}`;
}

function digest(state: RulesetState): string {
  return createHash("sha256").update(ruleset(state)).digest("hex");
}
