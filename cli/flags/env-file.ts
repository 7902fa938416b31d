/** `--env-file`: lines of `KEY=value`, comments, and bare keys that take the caller's value (docker/cli opts/file.go). Pure. */
import { bad, good, type Parsed } from "../../common/model/parsed.ts";
import { parseVariable } from "./lists.ts";

/** A larger file is not one of variables. */
const FILE_LENGTH_MAX = 1024 * 1024;

/** The variables of a file; a bare key that the caller lacks is left out, as Docker does. */
export function parseEnvFile(
  content: string,
  environment: Readonly<Record<string, string | undefined>>,
): Parsed<readonly string[]> {
  if (content.length > FILE_LENGTH_MAX) return bad(`is larger than ${FILE_LENGTH_MAX} bytes`);
  if (content.includes("\uFFFD")) return bad("contains invalid utf8 bytes");
  const variables: string[] = [];
  const lines = content.replace(/^\uFEFF/, "").split(/\r?\n/);
  for (const [index, raw] of lines.entries()) {
    const line = raw.trimStart();
    if (line === "" || line.startsWith("#")) continue;
    const equals = line.indexOf("=");
    const name = equals < 0 ? line.trimEnd() : line.slice(0, equals);
    if (name === "") return bad(`line ${index + 1}: no variable name on line ${JSON.stringify(line)}`);
    if (/\s/.test(name)) return bad(`line ${index + 1}: variable ${JSON.stringify(name)} contains whitespaces`);
    if (equals < 0 && environment[name] === undefined) continue;
    const parsed = parseVariable(equals < 0 ? name : line, environment);
    if (!parsed.ok) return bad(`line ${index + 1}: ${parsed.problem}`);
    variables.push(parsed.value);
  }
  return good(variables);
}
