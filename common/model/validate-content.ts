/** Checks of secrets and configs, in SwarmKit's words (swarmkit manager/controlapi/secret.go, config.go). */
import type { FieldProblem } from "../base/error.ts";
import { signalProblem } from "./signals.ts";
import { quoted } from "./units.ts";
import { Problems } from "./validate-parts.ts";

/** SwarmKit's bounds, in bytes: larger things are files, and every manager holds all of them in memory. */
export const SECRET_BYTES_MAX = 500 * 1024;
export const CONFIG_BYTES_MAX = 1000 * 1024;
/** As SwarmKit's validateConfigOrSecretAnnotations. */
const NAME = /^[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?$/;
const NAME_LENGTH_MAX = 64;

/** A secret or config as it is to be. */
export interface ContentInput {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly templateDriver: string;
  readonly data: Uint8Array;
  /** That a change in place sends; empty for none. */
  readonly signal?: string;
}

/** Every bad field. Nothing of the content is in a message. */
export function contentProblems(kind: "secret" | "config", input: ContentInput): readonly FieldProblem[] {
  const problems = new Problems();
  if (input.name === "") problems.add("name", "name must be provided");
  else if (input.name.length > NAME_LENGTH_MAX || !NAME.test(input.name)) {
    problems.add(
      "name",
      `invalid name ${quoted(input.name)}, only ${NAME_LENGTH_MAX} [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]`,
    );
  }
  problems.labels("labels", input.labels);
  if (input.templateDriver !== "" && input.templateDriver !== "golang") {
    problems.add("template_driver", `${quoted(input.templateDriver)} is not supported: only golang is`);
  }
  const bytesMax = kind === "secret" ? SECRET_BYTES_MAX : CONFIG_BYTES_MAX;
  const bytes = input.data.length;
  // SwarmKit: a secret needs a byte, and has less than the bound.
  if ((kind === "secret" && bytes === 0) || bytes >= bytesMax) {
    const least = kind === "secret" ? "larger than 0 and " : "";
    problems.add("data", `${kind} data must be ${least}less than ${bytesMax} bytes, not ${bytes}`);
  }
  if (input.signal) problems.text("signal", signalProblem(input.signal));
  return problems.list;
}
