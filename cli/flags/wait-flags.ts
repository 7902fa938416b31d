/** Flags of commands that change a service and wait for it. */
import type { FlagTable } from "./parse.ts";

export const WAIT_FLAGS = {
  detach: {
    kind: "boolean",
    short: "d",
    help: "Exit immediately instead of waiting for the service to converge",
  },
  quiet: { kind: "boolean", short: "q", help: "Suppress progress output" },
  timeout: {
    kind: "text",
    value: "duration",
    help: "Give up waiting after this time; the change stays",
    default: "none",
  },
} as const satisfies FlagTable;

/** Flags of `swarmctl wait`. */
export function waitForFlags(conditions: readonly string[], fallback: string) {
  return {
    for: {
      kind: "text",
      value: "condition",
      help: `One of ${conditions.join(", ")}`,
      default: fallback,
      choices: conditions,
    },
    timeout: { kind: "text", value: "duration", help: "Give up after this time with exit code 3", default: "none" },
  } as const satisfies FlagTable;
}
