/**
 * Holds a file against the schema: unknown names, wrong types and bad values are told, all of them; what a variable gave is
 * read as the type that its place wants; short forms become long ones. One walk, driven by rules (rule.ts).
 */
import { nearest } from "../../common/base/nearest.ts";
import { quoted } from "../../common/model/units.ts";
import type { Findings } from "./findings.ts";
import type { ListRule, MapRule, Rule, ScalarRule, Site } from "./rule.ts";
import {
  type Entry,
  isNull,
  type ListNode,
  type MapNode,
  pathOf,
  type ScalarNode,
  type Trail,
  type Tree,
  withEntries,
} from "./tree.ts";

/** What a check stands on. */
export interface CheckContext {
  readonly findings: Findings;
  readonly directory: string;
  readonly home: string;
  /** Whether variables were left in: then a text with one may stand anywhere. */
  readonly uninterpolated: boolean;
}

/** `node` in its long form, as far as it is good. */
export function check(node: Tree, rule: Rule, trail: Trail | undefined, context: CheckContext): Tree {
  if (rule.anything || node.tag === "reset") return node;
  const { tag } = node;
  const made = untagged(node, rule, trail, context);
  // What a short form became is as its author tagged it.
  return tag === undefined || made.tag === tag ? made : { ...made, tag };
}

function untagged(node: Tree, rule: Rule, trail: Trail | undefined, context: CheckContext): Tree {
  if (isNull(node) && rule.nullable) return rule.normalise?.(node, siteOf(trail, context)) ?? node;
  if (context.uninterpolated && isVariable(node)) return node;
  const before = context.findings.problems.length;
  const checked = checkKind(node, rule, trail, context);
  if (rule.normalise === undefined || context.findings.problems.length > before) return checked;
  return rule.normalise(checked, siteOf(trail, context));
}

function siteOf(trail: Trail | undefined, { findings, directory, home }: CheckContext): Site {
  return {
    name: String(trail?.step ?? ""),
    directory,
    home,
    problem: (node, message) => findings.problem(node.place, pathOf(trail), message),
    warn: (node, message) => findings.warn(node.place, pathOf(trail), message),
  };
}

/** Whether a text has a variable that was left in it. */
export function isVariable(node: Tree): node is ScalarNode {
  return node.kind === "scalar" && typeof node.value === "string" && node.value.includes("$");
}

function checkKind(node: Tree, rule: Rule, trail: Trail | undefined, context: CheckContext): Tree {
  if (node.kind === "map" && rule.map !== undefined) return checkMap(node, rule.map, trail, context);
  if (node.kind === "list" && rule.list !== undefined) return checkList(node, rule.list, trail, context);
  if (node.kind === "scalar" && rule.scalar !== undefined && node.value !== null) {
    return checkScalar(node, rule, rule.scalar, trail, context);
  }
  context.findings.problem(node.place, pathOf(trail), `must be ${wanted(rule)}`);
  return node;
}

function checkMap(node: MapNode, rule: MapRule, trail: Trail | undefined, context: CheckContext): MapNode {
  const fields = rule.fields ?? {};
  let entries: Map<string, Entry> | undefined;
  for (const [name, entry] of node.entries) {
    const inner: Trail = { up: trail, step: name };
    const field = Object.hasOwn(fields, name) ? fields[name] : undefined;
    if (field === undefined && rule.extensions && name.startsWith("x-")) continue;
    if (field === undefined && (rule.others === undefined || rule.names?.test(name) === false)) {
      context.findings.problem(entry.key, pathOf(inner), unknownName(name, rule));
      continue;
    }
    const value = check(entry.value, field ?? rule.others ?? {}, inner, context);
    if (value === entry.value) continue;
    entries ??= new Map(node.entries);
    entries.set(name, { key: entry.key, value });
  }
  for (const name of rule.required ?? []) {
    if (!node.entries.has(name)) context.findings.problem(node.place, pathOf(trail), `${name} is required`);
  }
  return entries === undefined ? node : withEntries(node, entries);
}

function unknownName(name: string, rule: MapRule): string {
  if (rule.others !== undefined) return `invalid name ${quoted(name)}: letters, digits and ._- only`;
  const suggestion = nearest(name, Object.keys(rule.fields ?? {}));
  const hint = suggestion === undefined ? "" : ` (did you mean ${suggestion}?)`;
  return `Additional property ${name.slice(0, 128)} is not allowed${hint}`;
}

function checkList(node: ListNode, rule: ListRule, trail: Trail | undefined, context: CheckContext): ListNode {
  const items = node.items.map((item, index) => check(item, rule.item, { up: trail, step: index }, context));
  if (rule.unique) {
    const seen = new Map<string, number>();
    items.forEach((item, index) => {
      if (item.kind !== "scalar") return;
      const earlier = seen.get(item.text);
      if (earlier === undefined) seen.set(item.text, index);
      else
        context.findings.problem(
          item.place,
          pathOf({ up: trail, step: index }),
          `${quoted(item.text)} stands at [${earlier}] already`,
        );
    });
  }
  return { ...node, items };
}

function checkScalar(
  node: ScalarNode,
  rule: Rule,
  wants: ScalarRule,
  trail: Trail | undefined,
  context: CheckContext,
): Tree {
  const value = cast(node, wants);
  if (value === undefined) {
    context.findings.problem(
      node.place,
      pathOf(trail),
      `must be ${wanted(rule)}${node.substituted ? `, not ${quoted(node.text)}` : ""}`,
    );
    return node;
  }
  const problem = valueProblem(value, wants);
  if (problem !== undefined) context.findings.problem(node.place, pathOf(trail), problem);
  return value;
}

/** The node with a value of a type that is wanted, or undefined. */
function cast(node: ScalarNode, { types }: ScalarRule): ScalarNode | undefined {
  const { value, text } = node;
  if (typeof value === "string") {
    if (types.includes("string")) return node;
    if (!node.substituted) return undefined;
    const read = types.includes("boolean") ? readBoolean(text) : readNumber(text);
    return read === undefined ? undefined : cast({ ...node, value: read }, { types });
  }
  if (typeof value === "boolean") return types.includes("boolean") ? node : undefined;
  if (typeof value !== "number") return undefined;
  if (types.includes("number")) return Number.isFinite(value) ? node : undefined;
  if (types.includes("integer")) return Number.isSafeInteger(value) ? node : undefined;
  return undefined;
}

/** As YAML 1.1 and docker/cli (interpolate.go, toBoolean) have them. */
function readBoolean(text: string): boolean | undefined {
  const lower = text.toLowerCase();
  if (["y", "yes", "true", "on"].includes(lower)) return true;
  return ["n", "no", "false", "off"].includes(lower) ? false : undefined;
}

function readNumber(text: string): number | undefined {
  return /^[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?$/.test(text) ? Number(text) : undefined;
}

function valueProblem({ value, text }: ScalarNode, wants: ScalarRule): string | undefined {
  if (wants.choices !== undefined && !wants.choices.includes(text)) {
    const near = nearest(text, wants.choices);
    return `must be one of ${wants.choices.join(", ")}, not ${quoted(text)}${near === undefined ? "" : ` (did you mean ${near}?)`}`;
  }
  if (typeof value === "number") {
    const { min, max } = wants;
    if (min !== undefined && value < min) return `${value} is too small: must be at least ${min}`;
    if (max !== undefined && value > max) return `${value} is too large: must be at most ${max}`;
  }
  return wants.format?.(text);
}

const NOUNS = { string: "a string", integer: "an integer", number: "a number", boolean: "a boolean" } as const;

/** "a string, a number or null". */
function wanted(rule: Rule): string {
  const words: string[] = (rule.scalar?.types ?? []).map((type) => NOUNS[type]);
  if (rule.list !== undefined) words.push("a list");
  if (rule.map !== undefined) words.push("a mapping");
  if (rule.nullable) words.push("null");
  const last = words.pop() ?? "absent";
  const [first, ...rest] = words;
  // "a string, number or null", as JSON schema's messages have it.
  return first === undefined ? last : `${[first, ...rest.map(bare)].join(", ")} or ${bare(last)}`;
}

function bare(word: string): string {
  return word.replace(/^an? /, "");
}
