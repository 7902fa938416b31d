/**
 * Seccomp profiles as Docker's users have them: JSON in the form of github.com/moby/profiles `seccomp/default.json`. Read here so
 * that a bad one is refused when it is stored, by its place, and not when a task starts; what it comes to on a host and for a
 * container's capabilities, the agent computes.
 *
 * A key that nobody knows is refused: a misspelt `args` would turn a rule for one argument into one for all.
 */
import type { FieldProblem } from "../base/error.ts";
import { quoted } from "./units.ts";

/** When a rule counts. */
export interface SeccompCondition {
  /** `CAP_SYS_ADMIN`. */
  readonly caps: readonly string[];
  /** Go's names: `amd64`, `arm64`. */
  readonly arches: readonly string[];
  /** `4.8`; empty for any. */
  readonly minKernel: string;
}

export type SeccompOperator = (typeof OPERATORS)[number];

export interface SeccompArgument {
  readonly index: number;
  readonly value: number;
  readonly valueTwo: number;
  readonly op: SeccompOperator;
}

export interface SeccompRule {
  readonly names: readonly string[];
  readonly action: string;
  readonly errnoRet?: number;
  readonly args: readonly SeccompArgument[];
  /** It counts where all capabilities are held and the host is one of these; empty lists say nothing. */
  readonly includes: SeccompCondition;
  /** It does not count where any of these is so. */
  readonly excludes: SeccompCondition;
}

export interface SeccompDocument {
  readonly defaultAction: string;
  readonly defaultErrnoRet?: number;
  readonly architectures: readonly string[];
  readonly archMap: readonly { readonly architecture: string; readonly subArchitectures: readonly string[] }[];
  /** `SECCOMP_FILTER_FLAG_LOG`, … */
  readonly flags: readonly string[];
  readonly syscalls: readonly SeccompRule[];
}

/** The document, or every place that is wrong, as `syscalls[3].args[0].op`. */
export type ReadSeccomp =
  | { readonly ok: true; readonly document: SeccompDocument }
  | { readonly ok: false; readonly problems: readonly FieldProblem[] };

const OPERATORS = [
  "SCMP_CMP_NE",
  "SCMP_CMP_LT",
  "SCMP_CMP_LE",
  "SCMP_CMP_EQ",
  "SCMP_CMP_GE",
  "SCMP_CMP_GT",
  "SCMP_CMP_MASKED_EQ",
] as const;

const ACTIONS = "KILL KILL_THREAD KILL_PROCESS TRAP ERRNO TRACE LOG ALLOW".split(" ").map((name) => `SCMP_ACT_${name}`);
const FLAGS = ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"];
/** The kernel's largest errno (MAX_ERRNO). */
const ERRNO_MAX = 4095;
/** Docker's own profile has 33; more rules than system calls times what can be said of each are no profile. */
const RULES_MAX = 4096;
/** A damaged document must not make an error of megabytes. */
const PROBLEMS_MAX = 20;

const KEYS = {
  document: "defaultAction defaultErrnoRet defaultErrno architectures archMap flags syscalls",
  rule: "names name action errnoRet errno args comment includes excludes",
  condition: "caps arches minKernel",
  argument: "index value valueTwo op",
  architecture: "architecture subArchitectures",
} as const;

/** Reads the text of a profile. */
export function readSeccompDocument(text: string): ReadSeccomp {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (reason) {
    const problem = `not JSON: ${reason instanceof Error ? reason.message.slice(0, 200) : ""}`;
    return { ok: false, problems: [{ field: "", problem }] };
  }
  const reader = new Reader();
  const document = reader.document(value);
  return reader.problems.length > 0 ? { ok: false, problems: reader.problems } : { ok: true, document };
}

type Fields = Readonly<Record<string, unknown>>;

/** Reads values of no known shape, and keeps what is wrong with them. */
class Reader {
  readonly problems: FieldProblem[] = [];

  document(value: unknown): SeccompDocument {
    const fields = this.#object(value, "", KEYS.document);
    if (fields.architectures !== undefined && fields.archMap !== undefined) {
      this.#bad("archMap", "both 'architectures' and 'archMap' are given");
    }
    if (fields.defaultAction === undefined) this.#bad("defaultAction", "is missing");
    const rules = this.#list(fields.syscalls, "syscalls");
    if (rules.length > RULES_MAX) this.#bad("syscalls", `${rules.length} rules; at most ${RULES_MAX}`);
    return {
      defaultAction: this.#action(fields.defaultAction ?? "SCMP_ACT_ERRNO", "defaultAction"),
      ...this.#errno("defaultErrnoRet", fields.defaultErrnoRet, "defaultErrnoRet"),
      architectures: this.#words(fields.architectures, "architectures"),
      archMap: this.#list(fields.archMap, "archMap").map((entry, index) => {
        const path = `archMap[${index}]`;
        const { architecture, subArchitectures } = this.#object(entry, path, KEYS.architecture);
        return {
          architecture: this.#word(architecture, `${path}.architecture`),
          subArchitectures: this.#words(subArchitectures, `${path}.subArchitectures`),
        };
      }),
      flags: this.#words(fields.flags, "flags").map((flag, index) => this.#flag(flag, `flags[${index}]`)),
      syscalls: rules.slice(0, RULES_MAX).map((rule, index) => this.#rule(rule, `syscalls[${index}]`)),
    };
  }

  #rule(value: unknown, path: string): SeccompRule {
    const fields = this.#object(value, path, KEYS.rule);
    const both = fields.name !== undefined && fields.names !== undefined;
    if (both) this.#bad(`${path}.names`, "both 'name' and 'names' are given");
    const names =
      fields.name === undefined
        ? this.#words(fields.names, `${path}.names`)
        : [this.#word(fields.name, `${path}.name`)];
    if (names.length === 0) this.#bad(`${path}.names`, "names no system call");
    return {
      names,
      action: this.#action(fields.action, `${path}.action`),
      ...this.#errno("errnoRet", fields.errnoRet, `${path}.errnoRet`),
      args: this.#list(fields.args, `${path}.args`).map((arg, index) => this.#argument(arg, `${path}.args[${index}]`)),
      includes: this.#condition(fields.includes, `${path}.includes`),
      excludes: this.#condition(fields.excludes, `${path}.excludes`),
    };
  }

  #argument(value: unknown, path: string): SeccompArgument {
    const fields = this.#object(value, path, KEYS.argument);
    const op = OPERATORS.find((each) => each === fields.op);
    if (op === undefined) this.#bad(`${path}.op`, `unknown operator ${shown(fields.op)}`);
    return {
      index: this.#number(fields.index, `${path}.index`, 5),
      value: this.#number(fields.value ?? 0, `${path}.value`, Number.MAX_SAFE_INTEGER),
      valueTwo: this.#number(fields.valueTwo ?? 0, `${path}.valueTwo`, Number.MAX_SAFE_INTEGER),
      op: op ?? "SCMP_CMP_EQ",
    };
  }

  #condition(value: unknown, path: string): SeccompCondition {
    const { caps, arches, minKernel } = this.#object(value ?? {}, path, KEYS.condition);
    const kernel = minKernel === undefined ? "" : this.#word(minKernel, `${path}.minKernel`);
    if (kernel !== "" && !/^\d{1,4}\.\d{1,4}$/.test(kernel)) {
      this.#bad(`${path}.minKernel`, `${shown(kernel)} is not a version such as 4.8`);
    }
    return {
      caps: this.#words(caps, `${path}.caps`),
      arches: this.#words(arches, `${path}.arches`),
      minKernel: kernel,
    };
  }

  #action(value: unknown, path: string): string {
    const action = ACTIONS.find((each) => each === value);
    if (action !== undefined) return action;
    const listener =
      value === "SCMP_ACT_NOTIFY" ? "SCMP_ACT_NOTIFY needs a listener, which containers here have not" : "";
    this.#bad(path, listener || `unknown action ${shown(value)}`);
    return "SCMP_ACT_ERRNO";
  }

  #flag(flag: string, path: string): string {
    if (!FLAGS.includes(flag)) this.#bad(path, `unknown or unsupported flag ${shown(flag)}`);
    return flag;
  }

  #errno<Name extends string>(name: Name, value: unknown, path: string): { readonly [name in Name]?: number } {
    if (value === undefined || value === null) return {};
    return { [name]: this.#number(value, path, ERRNO_MAX) } as { readonly [name in Name]?: number };
  }

  #number(value: unknown, path: string, max: number): number {
    if (typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= max) return value;
    this.#bad(path, `${shown(value)} is not a whole number from 0 to ${max}`);
    return 0;
  }

  #word(value: unknown, path: string): string {
    if (typeof value === "string" && value !== "") return value;
    this.#bad(path, `${shown(value)} is not a name`);
    return "";
  }

  #words(value: unknown, path: string): readonly string[] {
    return this.#list(value, path).map((word, index) => this.#word(word, `${path}[${index}]`));
  }

  #list(value: unknown, path: string): readonly unknown[] {
    if (value === undefined || value === null) return [];
    if (Array.isArray(value)) return value;
    this.#bad(path, "is not a list");
    return [];
  }

  #object(value: unknown, path: string, keys: string): Fields {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      this.#bad(path, "is not an object");
      return {};
    }
    const known = keys.split(" ");
    for (const key of Object.keys(value)) {
      if (!known.includes(key))
        this.#bad(path === "" ? key.slice(0, 64) : `${path}.${key.slice(0, 64)}`, "unknown key");
    }
    return value as Fields;
  }

  #bad(field: string, problem: string): void {
    if (this.problems.length < PROBLEMS_MAX) this.problems.push({ field, problem });
  }
}

function shown(value: unknown): string {
  return quoted(String(typeof value === "object" ? JSON.stringify(value) : value).slice(0, 64));
}
