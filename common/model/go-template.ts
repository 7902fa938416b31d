/**
 * The part of Go's text/template that Docker's users write: fields, pipelines, functions, variables, if, range, with.
 * `swarmctl --format` and the templates in a service's environment share it. A template is data: it reads own properties
 * only, calls only the functions it is handed, and its output is bounded.
 *
 *   text ──tokens──▶ nodes (parse, once) ──execute(data)──▶ text | problem
 */
import { SwarmError } from "../base/error.ts";
import { parseNodes } from "./go-template-parse.ts";
import { BUILTINS, type TemplateFunctions, templateFailure, truth, valueText } from "./go-template-values.ts";
import { bad, good, type Parsed } from "./parsed.ts";

/** One operand of a command. */
export type Operand =
  | { readonly kind: "literal"; readonly value: string | number | boolean | null; readonly fields: readonly string[] }
  | { readonly kind: "dot"; readonly fields: readonly string[] }
  | { readonly kind: "variable"; readonly name: string; readonly fields: readonly string[] }
  | { readonly kind: "call"; readonly name: string; readonly fields: readonly string[] }
  | { readonly kind: "pipe"; readonly pipe: Pipe; readonly fields: readonly string[] };

/** Commands joined by `|`, with the variables that take the result. */
export interface Pipe {
  readonly variables: readonly string[];
  readonly declares: boolean;
  readonly commands: readonly (readonly Operand[])[];
}

export type TemplateNode =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "action"; readonly pipe: Pipe }
  | {
      readonly kind: "if" | "range" | "with";
      readonly pipe: Pipe;
      readonly body: readonly TemplateNode[];
      readonly otherwise: readonly TemplateNode[];
    };

/** A template that was read and may be executed many times. */
export interface Template {
  /** The text for `data`, or what is wrong: an unknown field is named. */
  execute(data: unknown): Parsed<string>;
  /** What it was read into: a table takes its headings from the fields. */
  readonly nodes: readonly TemplateNode[];
}

/** Output beyond this is refused; a template of a service is expanded on every node. */
const OUTPUT_LENGTH_MAX = 16 * 1024 * 1024;
const TEMPLATE_LENGTH_MAX = 64 * 1024;

/** Reads a template. `functions` come on top of Go's own (and, or, not, eq, …, len, index, print, printf, println). */
export function parseTemplate(text: string, functions: TemplateFunctions = {}): Parsed<Template> {
  if (text.length > TEMPLATE_LENGTH_MAX) return bad(`template is longer than ${TEMPLATE_LENGTH_MAX} characters`);
  const known: TemplateFunctions = { ...BUILTINS, ...functions };
  return attempt(() => {
    const nodes = parseNodes(text, (name) => Object.hasOwn(known, name));
    return {
      nodes,
      execute: (data: unknown) =>
        attempt(() => {
          const run = new Run(known, data);
          run.nodes(nodes, data);
          return run.output;
        }),
    };
  });
}

function attempt<T>(work: () => T): Parsed<T> {
  try {
    return good(work());
  } catch (reason) {
    if (reason instanceof SwarmError) return bad(reason.message);
    throw reason;
  }
}

/** One execution: the variables in scope and what was written so far. */
class Run {
  readonly #functions: TemplateFunctions;
  #variables: { readonly name: string; value: unknown }[];
  output = "";

  constructor(functions: TemplateFunctions, data: unknown) {
    this.#functions = functions;
    this.#variables = [{ name: "$", value: data }];
  }

  nodes(nodes: readonly TemplateNode[], dot: unknown): void {
    const mark = this.#variables.length;
    for (const node of nodes) this.#node(node, dot);
    this.#variables.length = mark;
  }

  #node(node: TemplateNode, dot: unknown): void {
    switch (node.kind) {
      case "text":
        this.#write(node.text);
        break;
      case "action": {
        const value = this.#pipe(node.pipe, dot);
        if (node.pipe.variables.length === 0) this.#write(valueText(value));
        break;
      }
      case "range":
        this.#range(node, dot);
        break;
      case "if":
      case "with": {
        const mark = this.#variables.length;
        const value = this.#pipe(node.pipe, dot);
        const chosen = truth(value) ? node.body : node.otherwise;
        this.nodes(chosen, node.kind === "with" && truth(value) ? value : dot);
        this.#variables.length = mark;
      }
    }
  }

  #range(node: Extract<TemplateNode, { kind: "if" | "range" | "with" }>, dot: unknown): void {
    const mark = this.#variables.length;
    const entries = entriesOf(this.#evaluate(node.pipe, dot));
    if (entries.length === 0) this.nodes(node.otherwise, dot);
    for (const [key, value] of entries) {
      const names = node.pipe.variables;
      if (names.length === 2) this.#declare(names[0], key);
      if (names.length > 0) this.#declare(names.at(-1), value);
      this.nodes(node.body, value);
      this.#variables.length = mark;
    }
  }

  #pipe(pipe: Pipe, dot: unknown): unknown {
    const value = this.#evaluate(pipe, dot);
    for (const name of pipe.variables) {
      if (pipe.declares) this.#declare(name, value);
      else this.#variable(name).value = value;
    }
    return value;
  }

  #evaluate(pipe: Pipe, dot: unknown): unknown {
    let value: unknown;
    pipe.commands.forEach((command, index) => {
      value = this.#command(command, dot, index === 0 ? [] : [value]);
    });
    return value;
  }

  #command(command: readonly Operand[], dot: unknown, piped: readonly unknown[]): unknown {
    const [first, ...rest] = command;
    if (first === undefined) throw templateFailure("missing value for command");
    const args = [...rest.map((operand) => this.#operand(operand, dot)), ...piped];
    if (first.kind !== "call") {
      const value = this.#operand(first, dot);
      // A method of the data, such as a row's Label: whoever hands data in decides which there are.
      if (typeof value === "function") return value(...args);
      if (args.length > 0) throw templateFailure("can't give an argument to something that is no function");
      return value;
    }
    return this.#call(first, args);
  }

  #operand(operand: Operand, dot: unknown): unknown {
    switch (operand.kind) {
      case "literal":
        return fieldsOf(operand.value, operand.fields);
      case "dot":
        return fieldsOf(dot, operand.fields);
      case "variable":
        return fieldsOf(this.#variable(operand.name).value, operand.fields);
      case "pipe":
        return fieldsOf(this.#pipe(operand.pipe, dot), operand.fields);
      case "call":
        return this.#call(operand, []);
    }
  }

  #call(operand: Extract<Operand, { kind: "call" }>, args: readonly unknown[]): unknown {
    const called = Object.hasOwn(this.#functions, operand.name) ? this.#functions[operand.name] : undefined;
    if (called === undefined) throw templateFailure(`function ${JSON.stringify(operand.name)} not defined`);
    return fieldsOf(called(...args), operand.fields);
  }

  #declare(name: string | undefined, value: unknown): void {
    if (name !== undefined) this.#variables.push({ name, value });
  }

  #variable(name: string): { value: unknown } {
    const found = this.#variables.findLast((variable) => variable.name === name);
    if (found === undefined) throw templateFailure(`undefined variable ${JSON.stringify(name)}`);
    return found;
  }

  #write(text: string): void {
    this.output += text;
    if (this.output.length > OUTPUT_LENGTH_MAX) throw templateFailure("the output is too long");
  }
}

function entriesOf(value: unknown): readonly (readonly [unknown, unknown])[] {
  if (value === undefined || value === null) return [];
  if (Array.isArray(value)) return value.map((item, index) => [index, item]);
  if (typeof value === "object") return Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  throw templateFailure(`range can't iterate over ${valueText(value)}`);
}

/** Follows `.a.b` through own properties, enumerable or not. Objects without a prototype are maps, whose missing keys are no mistake. */
function fieldsOf(value: unknown, fields: readonly string[]): unknown {
  let current = value;
  for (const field of fields) {
    if (typeof current !== "object" || current === null) {
      throw templateFailure(`can't evaluate field ${field} in ${current === undefined ? "nothing" : typeof current}`);
    }
    const own = Array.isArray(current) ? undefined : Object.getOwnPropertyDescriptor(current, field);
    if (own === undefined) {
      if (Object.getPrototypeOf(current) === null) return undefined;
      const fieldsThere = Array.isArray(current) ? "" : ` (fields: ${Object.keys(current).join(", ")})`;
      throw templateFailure(`can't evaluate field ${field}${fieldsThere}`);
    }
    current = own.value;
  }
  return current;
}
