/**
 * Compiles a seccomp profile in the OCI's shape into the classic BPF program the kernel loads (seccomp(2)). Pure: the
 * shim only hands the bytes to the kernel. It knows nothing of which calls ought to be allowed; `seccomp-profile.ts`
 * does.
 *
 *     arch? -> x86-64: number? -> halving over ranges of equal decisions -> allow | errno | look at arguments
 *           -> i386:   the same over its own numbers
 *           -> any other: kill the process
 */
import { type FieldProblem, invalidFields, unreachable } from "../../common/base/error.ts";
import { type BpfLabel, BpfProgram } from "./classic-bpf.ts";
import type { OciSeccomp, OciSeccompArgument } from "./oci.ts";
import { type Architecture, SYSCALLS, type SyscallAbi } from "./syscalls.ts";

const RET_KILL_PROCESS = 0x80000000;
const RET_ERRNO = 0x00050000;
const RET_TRACE = 0x7ff00000;
const RET_LOG = 0x7ffc0000;
const RET_ALLOW = 0x7fff0000;
const ACTIONS: ReadonlyMap<string, number> = new Map([
  ["SCMP_ACT_KILL", 0],
  ["SCMP_ACT_KILL_THREAD", 0],
  ["SCMP_ACT_KILL_PROCESS", RET_KILL_PROCESS],
  ["SCMP_ACT_TRAP", 0x00030000],
  ["SCMP_ACT_ERRNO", RET_ERRNO],
  ["SCMP_ACT_TRACE", RET_TRACE],
  ["SCMP_ACT_LOG", RET_LOG],
  ["SCMP_ACT_ALLOW", RET_ALLOW],
]);

const EPERM = 1;
const ENOSYS = 38;
/** The kernel's largest errno (MAX_ERRNO); seccomp would cap a larger one silently. */
const ERRNO_MAX = 4095;

/** Bit that marks x32 calls, which share the architecture of x86-64 but not its numbers. */
const X32_BIT = 0x40000000;

/** BPF_MAXINSNS: the kernel loads no longer program. */
const INSTRUCTIONS_MAX = 4096;

/** AUDIT_ARCH_* of include/uapi/linux/audit.h. */
const AUDIT_ARCHITECTURE: Readonly<Record<SyscallAbi, number>> = {
  x86_64: 0xc000003e,
  i386: 0x40000003,
  aarch64: 0xc00000b7,
};

/** The 32-bit ABI a profile may name beside the native one. 32-bit Arm is not served: its processes are killed. */
const OCI_ABI: Readonly<Record<Architecture, ReadonlyMap<string, SyscallAbi>>> = {
  x86_64: new Map([["SCMP_ARCH_X86", "i386"]]),
  aarch64: new Map(),
};

const OFFSET_NUMBER = 0;
const OFFSET_ARCHITECTURE = 4;
const OFFSET_ARGUMENTS = 16;
const U64_MAX = (1n << 64n) - 1n;
const LOW = 0xffff_ffffn;

/** A rule as it is applied to one call: its arguments checked, its action the kernel's value. */
interface Decision {
  readonly action: number;
  readonly args: readonly Comparison[];
}

interface Comparison {
  readonly index: number;
  readonly op: OciSeccompArgument["op"];
  readonly value: bigint;
  readonly valueTwo: bigint;
}

/** SECCOMP_FILTER_FLAG_* of include/uapi/linux/seccomp.h. */
const FLAGS: Readonly<Record<string, number>> = {
  SECCOMP_FILTER_FLAG_TSYNC: 1,
  SECCOMP_FILTER_FLAG_LOG: 2,
  SECCOMP_FILTER_FLAG_SPEC_ALLOW: 4,
};

/** The profile's flags as bits for seccomp(2). Throws `invalid_argument` that names an unknown one. */
export function seccompFlags({ flags = [] }: OciSeccomp): number {
  return flags.reduce((bits, flag, index) => {
    const bit = FLAGS[flag];
    if (bit !== undefined) return bits | bit;
    throw invalidFields([{ field: `seccomp.flags[${index}]`, problem: `unknown or unsupported flag ${flag}` }]);
  }, 0);
}

const programs = new WeakMap<OciSeccomp, Map<Architecture, Uint8Array>>();

/**
 * The filter for processes of `architecture` as an array of struct sock_filter. Rules are tried in order and the
 * first that matches decides, even when it says the same as the default action; numbers newer than our tables, and
 * x32, answer ENOSYS, so that programs fall back to older calls. The program is remembered by the profile's identity.
 * Throws `invalid_argument` naming every unknown action and operator and every value out of range.
 */
export function compileSeccomp(profile: OciSeccomp, architecture: Architecture): Uint8Array {
  const remembered = programs.get(profile) ?? new Map<Architecture, Uint8Array>();
  const known = remembered.get(architecture);
  if (known !== undefined) return known;
  const compiled = compile(profile, architecture);
  remembered.set(architecture, compiled);
  programs.set(profile, remembered);
  return compiled;
}

function compile(profile: OciSeccomp, architecture: Architecture): Uint8Array {
  const problems: FieldProblem[] = [];
  const defaultAction = actionValue("defaultAction", profile.defaultAction, profile.defaultErrnoRet, problems);
  const decisions = decisionsByName(profile, problems);
  if (problems.length > 0) throw invalidFields(problems);

  const program = new BpfProgram();
  const named = (profile.architectures ?? []).flatMap((name) => OCI_ABI[architecture].get(name) ?? []);
  let next = program.return(RET_KILL_PROCESS);
  // The native ABI is written last and so stands, and is compared, first.
  for (const abi of [...new Set(named), architecture]) {
    const numbers = dispatchNumbers(program, abi, decisions, defaultAction);
    next = program.test("equal", AUDIT_ARCHITECTURE[abi], numbers, next);
  }
  const bytes = program.bytes(program.load(OFFSET_ARCHITECTURE, next));
  if (program.length <= INSTRUCTIONS_MAX) return bytes;
  const problem = `makes ${program.length} instructions, the kernel takes ${INSTRUCTIONS_MAX}`;
  throw invalidFields([{ field: "seccomp.syscalls", problem }]);
}

function decisionsByName(profile: OciSeccomp, problems: FieldProblem[]): ReadonlyMap<string, readonly Decision[]> {
  const byName = new Map<string, Decision[]>();
  for (const [index, rule] of (profile.syscalls ?? []).entries()) {
    const field = `syscalls[${index}]`;
    const action = actionValue(`${field}.action`, rule.action, rule.errnoRet, problems);
    const args = (rule.args ?? []).map((arg, at) => comparison(`${field}.args[${at}]`, arg, problems));
    for (const name of rule.names) {
      const decisions = byName.get(name) ?? [];
      byName.set(name, decisions);
      // Two comparisons of one argument mean "either", as in runc: each becomes a rule of its own.
      if (new Set(args.map((arg) => arg.index)).size < args.length) {
        decisions.push(...args.map((arg) => ({ action, args: [arg] })));
      } else decisions.push({ action, args });
    }
  }
  return byName;
}

function actionValue(field: string, name: string, errno: number | undefined, problems: FieldProblem[]): number {
  const base = ACTIONS.get(name);
  if (base === undefined)
    problems.push({ field: `seccomp.${field}`, problem: `unknown or unsupported action ${name}` });
  if (base !== RET_ERRNO && base !== RET_TRACE) return base ?? 0;
  const data = errno ?? EPERM;
  if (!Number.isInteger(data) || data < 0 || data > ERRNO_MAX) {
    problems.push({ field: `seccomp.${field}`, problem: `errno ${data} is not within 0 to ${ERRNO_MAX}` });
    return base;
  }
  return (base | data) >>> 0;
}

const OPERATORS: ReadonlySet<string> = new Set(
  ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"].map((name) => `SCMP_CMP_${name}`),
);

function comparison(field: string, argument: OciSeccompArgument, problems: FieldProblem[]): Comparison {
  const bad = (what: string) => problems.push({ field: `seccomp.${field}`, problem: what });
  const value64 = (value: number): bigint => {
    const exact = Number.isInteger(value) ? BigInt(value) : -1n;
    if (exact < 0n || exact > U64_MAX) bad(`value ${value} is not within 0 to 2^64-1`);
    return exact;
  };
  if (!Number.isInteger(argument.index) || argument.index < 0 || argument.index > 5) bad("index is not within 0 to 5");
  if (!OPERATORS.has(argument.op)) bad(`unknown operator ${argument.op}`);
  const { index, op } = argument;
  return { index, op, value: value64(argument.value), valueTwo: value64(argument.valueTwo ?? 0) };
}

function dispatchNumbers(
  program: BpfProgram,
  abi: SyscallAbi,
  decisions: ReadonlyMap<string, readonly Decision[]>,
  defaultAction: number,
): BpfLabel {
  const names = new Map([...SYSCALLS[abi]].map(([name, number]) => [number, name]));
  const end = Math.max(...names.keys()) + 1;
  const permissive = defaultAction === RET_ALLOW || defaultAction === RET_LOG;
  const tails = new Map<string, BpfLabel>();
  const labels: BpfLabel[] = [];
  for (let number = 0; number < end; number++) {
    const rules = effective(decisions.get(names.get(number) ?? "") ?? [], defaultAction);
    const key = describe(rules);
    const label = tails.get(key) ?? decide(program, rules);
    tails.set(key, label);
    labels.push(label);
  }
  const unknown = program.return(permissive ? defaultAction : RET_ERRNO | ENOSYS);
  const ranges = labels.flatMap((label, from) => (label === labels[from - 1] ? [] : [{ from, label }]));
  ranges.push({ from: end, label: unknown });
  if (abi === "x86_64" && permissive) ranges.push({ from: X32_BIT, label: program.return(RET_ERRNO | ENOSYS) });
  return program.load(OFFSET_NUMBER, program.search(ranges));
}

/** The rules up to the first that always matches; the last one always does. */
function effective(rules: readonly Decision[], defaultAction: number): readonly Decision[] {
  const always = rules.findIndex((rule) => rule.args.length === 0);
  return always >= 0 ? rules.slice(0, always + 1) : [...rules, { action: defaultAction, args: [] }];
}

function describe(rules: readonly Decision[]): string {
  const text = ({ index, op, value, valueTwo }: Comparison) => `${index} ${op} ${value} ${valueTwo}`;
  return rules.map(({ action, args }) => `${action}:${args.map(text).join()}`).join(";");
}

function decide(program: BpfProgram, rules: readonly Decision[]): BpfLabel {
  let next = program.return(rules.at(-1)?.action ?? RET_KILL_PROCESS);
  let rest = rules.slice(0, -1);
  for (let last = rest.at(-1); last !== undefined; last = rest.at(-1)) {
    const alternatives = trailingAlternatives(rest);
    const yes = program.return(last.action);
    if (alternatives !== undefined) {
      next = matchAny(program, last.args[0]?.index ?? 0, alternatives, yes, next);
      rest = rest.slice(0, -alternatives.length);
      continue;
    }
    let matched = yes;
    for (const argument of last.args.toReversed()) matched = match(program, argument, matched, next);
    next = matched;
    rest = rest.slice(0, -1);
  }
  return next;
}

interface Range {
  readonly first: number;
  readonly last: number;
}

/** The rules at the end that each compare the same one argument with small values and act alike, as ranges of it. */
function trailingAlternatives(rules: readonly Decision[]): readonly Range[] | undefined {
  const ranges: Range[] = [];
  const last = rules.at(-1);
  for (const { action, args } of rules.toReversed()) {
    const [argument] = args;
    if (args.length !== 1 || argument === undefined) break;
    if (action !== last?.action || argument.index !== last.args[0]?.index || argument.value > LOW) break;
    const value = Number(argument.value);
    if (argument.op === "SCMP_CMP_EQ") ranges.push({ first: value, last: value });
    else if (argument.op === "SCMP_CMP_LT" && value > 0) ranges.push({ first: 0, last: value - 1 });
    else break;
  }
  return ranges.length > 1 ? ranges : undefined;
}

/** One look at the high word, one at the low word, then halving: dozens of "equals" cost a handful of instructions. */
function matchAny(program: BpfProgram, index: number, ranges: readonly Range[], yes: BpfLabel, no: BpfLabel): BpfLabel {
  const steps: { from: number; label: BpfLabel }[] = [];
  let covered = 0;
  for (const { first, last } of ranges.toSorted((a, b) => a.first - b.first)) {
    if (last < covered) continue;
    if (first > covered || steps.length === 0) {
      if (first > covered) steps.push({ from: covered, label: no });
      steps.push({ from: Math.max(first, covered), label: yes });
    }
    covered = last + 1;
  }
  if (covered <= Number(LOW)) steps.push({ from: covered, label: no });
  const low = program.load(lowWord(index), program.search(steps));
  return program.load(highWord(index), program.test("equal", 0, low, no));
}

/** Both supported architectures, and i386, are little-endian. */
function lowWord(index: number): number {
  return OFFSET_ARGUMENTS + 8 * index;
}

function highWord(index: number): number {
  return lowWord(index) + 4;
}

function match(program: BpfProgram, argument: Comparison, yes: BpfLabel, no: BpfLabel): BpfLabel {
  switch (argument.op) {
    case "SCMP_CMP_NE":
      return matchMasked(program, argument.index, U64_MAX, argument.value, no, yes);
    case "SCMP_CMP_MASKED_EQ":
      return matchMasked(program, argument.index, argument.value, argument.valueTwo, yes, no);
    case "SCMP_CMP_GE":
      return matchAbove(program, argument, "greaterOrEqual", yes, no);
    case "SCMP_CMP_GT":
      return matchAbove(program, argument, "greater", yes, no);
    case "SCMP_CMP_LT":
      return matchAbove(program, argument, "greaterOrEqual", no, yes);
    case "SCMP_CMP_LE":
      return matchAbove(program, argument, "greater", no, yes);
    case "SCMP_CMP_EQ":
      return matchMasked(program, argument.index, U64_MAX, argument.value, yes, no);
    default:
      return unreachable(argument.op);
  }
}

function matchMasked(
  program: BpfProgram,
  index: number,
  mask: bigint,
  value: bigint,
  yes: BpfLabel,
  no: BpfLabel,
): BpfLabel {
  const word = (offset: number, wordMask: number, wordValue: number, matched: BpfLabel): BpfLabel => {
    if (wordMask === 0) return wordValue === 0 ? matched : no;
    const test = program.test("equal", wordValue, matched, no);
    return program.load(offset, wordMask === Number(LOW) ? test : program.and(wordMask, test));
  };
  const low = word(lowWord(index), Number(mask & LOW), Number(value & LOW), yes);
  return word(highWord(index), Number(mask >> 32n), Number(value >> 32n), low);
}

function matchAbove(
  program: BpfProgram,
  { index, value }: Comparison,
  test: "greater" | "greaterOrEqual",
  yes: BpfLabel,
  no: BpfLabel,
): BpfLabel {
  const high = Number(value >> 32n);
  const low = program.load(lowWord(index), program.test(test, Number(value & LOW), yes, no));
  const same = program.test("equal", high, low, no);
  return program.load(highWord(index), program.test("greater", high, yes, same));
}
