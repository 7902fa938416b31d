/** Flags of commands that list. */
import type { FlagTable } from "./parse.ts";

export const LIST_FLAGS = {
  format: {
    kind: "text",
    value: "string",
    help: "Format output: 'table', 'table TEMPLATE', 'json', or a Go template",
  },
  quiet: { kind: "boolean", short: "q", help: "Only display IDs" },
} as const satisfies FlagTable;

/** Flags of commands that inspect. */
export const INSPECT_FLAGS = {
  format: { kind: "text", short: "f", value: "string", help: "Format output: 'json' or a Go template" },
  pretty: { kind: "boolean", help: "Print the information in a human friendly format" },
} as const satisfies FlagTable;
