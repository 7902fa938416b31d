/** `--secret NAME` and `--config source=,target=,uid=,gid=,mode=` (docker/cli opts/secret.go, opts/config.go). Pure. */
import { create } from "@bufbuild/protobuf";
import { bad, good, type Parsed } from "../../common/model/parsed.ts";
import {
  type ConfigReference,
  ConfigReferenceSchema,
  type FileTarget,
  FileTargetSchema,
  type SecretReference,
  SecretReferenceSchema,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { parseCsvFields } from "./csv.ts";

interface Parts {
  readonly source: string;
  readonly file: FileTarget;
}

export function parseSecret(text: string): Parsed<SecretReference> {
  const parts = parseReference(text);
  if (!parts.ok) return parts;
  const { source, file } = parts.value;
  return good(create(SecretReferenceSchema, { secretName: source, file }));
}

export function parseConfig(text: string): Parsed<ConfigReference> {
  const parts = parseReference(text);
  if (!parts.ok) return parts;
  const { source, file } = parts.value;
  return good(create(ConfigReferenceSchema, { configName: source, file }));
}

/** A bare word is the source; its file is called like it. */
function parseReference(text: string): Parsed<Parts> {
  const fields = parseCsvFields(text);
  if (!fields.ok) return fields;
  const [first] = fields.value;
  if (fields.value.length === 1 && first?.value === undefined) {
    if (text.trim() === "") return bad("a name must be given");
    return good({ source: text.trim(), file: create(FileTargetSchema, { name: text.trim() }) });
  }
  let source = "";
  const file = create(FileTargetSchema, {});
  for (const { key, value } of fields.value) {
    if (value === undefined) return bad(`invalid field '${key}' must be a key=value pair`);
    if (key === "source" || key === "src") source = value;
    else if (key === "target") file.name = value;
    else if (key === "uid" || key === "gid") file[key] = value;
    else if (key === "mode") {
      if (!/^0?o?[0-7]{1,5}$/.test(value)) return bad(`invalid mode specified: ${value} is not an octal number`);
      file.mode = Number.parseInt(value.replace("o", ""), 8);
    } else return bad(`invalid field in reference: ${key}`);
  }
  if (source === "") return bad("source is required");
  if (file.name === "") file.name = source;
  return good({ source, file });
}
