/**
 * `--format`: Docker's table, a Go template, `table TEMPLATE`, or `json`. A list is rows of named texts; which of them are
 * shown, and how, is decided here. Pure.
 */
import { parseTemplate, type Template } from "../../common/model/go-template.ts";
import { type TemplateFunctions, templateFailure, textOf, valueText } from "../../common/model/go-template-values.ts";
import { escapeControls } from "../../common/model/text.ts";
import { UsageError } from "../usage-error.ts";
import { renderTable } from "./table.ts";

/** The object's labels, for `{{.Label "key"}}`. */
export const LABELS = Symbol("labels");

/** One line of a list: every field that a template may name. */
export type Row = Readonly<Record<string, string>> & {
  readonly [LABELS]?: Readonly<Record<string, string>> | undefined;
};

/** What a list command shows when it is not told otherwise. */
export interface Listing {
  /** Template fields with their headings, in the order of the default table. */
  readonly columns: Readonly<Record<string, string>>;
  /** Further fields for templates and their headings. */
  readonly more?: Readonly<Record<string, string>>;
  /** The field that `--quiet` shows. */
  readonly key: string;
}

/** Docker's template functions (docker/cli templates). */
const FUNCTIONS: TemplateFunctions = {
  json: (value) => jsonOf(value),
  upper: (text) => textOf(text, "upper").toUpperCase(),
  lower: (text) => textOf(text, "lower").toLowerCase(),
  title: (text) => textOf(text, "title").replace(/\b[a-z]/g, (letter) => letter.toUpperCase()),
  split: (text, separator) => textOf(text, "split").split(textOf(separator, "split")),
  join: (list, separator) => {
    if (!Array.isArray(list)) throw templateFailure("join needs a list");
    return list.map(valueText).join(textOf(separator, "join"));
  },
  pad: (text, before, after) => `${" ".repeat(width(before))}${textOf(text, "pad")}${" ".repeat(width(after))}`,
  truncate: (text, length) => textOf(text, "truncate").slice(0, width(length)),
};

/** Renders a list. `format` undefined or "table" means the default table. */
export function renderList(
  listing: Listing,
  rows: readonly Row[],
  options: { readonly format?: string | undefined; readonly quiet?: boolean },
): string {
  const shown = rows.map(escapedRow);
  const format = options.format ?? "table";
  if (options.quiet && (format === "table" || format === "")) {
    return shown.map((row) => `${row[listing.key] ?? ""}\n`).join("");
  }
  if (format === "json") return rows.map((row) => `${JSON.stringify(row)}\n`).join("");
  if (format === "table" || format === "") {
    const fields = Object.keys(listing.columns);
    return renderTable([
      Object.values(listing.columns),
      ...shown.map((row) => fields.map((field) => row[field] ?? "")),
    ]);
  }
  if (!format.startsWith("table ")) {
    const template = templateOf(format);
    return shown.map((row) => `${executed(template, row)}\n`).join("");
  }
  const template = templateOf(format.slice("table ".length).trim());
  const headings = { ...listing.columns, ...listing.more, Label: (key: unknown) => textOf(key, "Label") };
  const lines = [executed(template, headings), ...shown.map((row) => executed(template, row))];
  return renderTable(lines.map((line) => line.split("\t")));
}

/** Renders objects as `inspect` does: a JSON array, or a template per object. */
export function renderObjects(objects: readonly unknown[], format: string | undefined): string {
  if (format === undefined || format === "") return `${JSON.stringify(objects, undefined, 4)}\n`;
  if (format === "json") return objects.map((object) => `${JSON.stringify(object)}\n`).join("");
  const template = templateOf(format);
  return objects.map((object) => `${escapeLines(executed(template, object))}\n`).join("");
}

/** Renders one object, as `version` and `info` do. */
export function renderObject(object: unknown, format: string): string {
  return renderObjects([object], format);
}

function templateOf(text: string): Template {
  const parsed = parseTemplate(text.replaceAll("\\t", "\t").replaceAll("\\n", "\n"), FUNCTIONS);
  if (!parsed.ok) throw new UsageError(`--format: ${parsed.problem}`);
  return parsed.value;
}

function executed(template: Template, data: unknown): string {
  const result = template.execute(data);
  if (!result.ok) throw new UsageError(`--format: ${result.problem}`);
  return result.value;
}

/** With `Label` beside the fields where an object has labels: for templates only. */
function escapedRow(row: Row): Row {
  const fields = Object.fromEntries(Object.entries(row).map(([field, text]) => [field, escapeControls(text)]));
  const labels = row[LABELS];
  if (labels === undefined) return fields;
  const value = (key: unknown) => {
    const name = textOf(key, "Label");
    return Object.hasOwn(labels, name) ? escapeControls(labels[name] ?? "") : "";
  };
  return Object.defineProperty(fields, "Label", { value, enumerable: false });
}

/** A template may break lines and tabulate; nothing in it may drive the terminal. */
function escapeLines(text: string): string {
  return text
    .split("\n")
    .map((line) => line.split("\t").map(escapeControls).join("\t"))
    .join("\n");
}

function jsonOf(value: unknown): string {
  return JSON.stringify(value ?? null);
}

function width(value: unknown): number {
  if (typeof value !== "number" || value < 0) throw templateFailure("needs a number of characters");
  return Math.min(value, 1024);
}
