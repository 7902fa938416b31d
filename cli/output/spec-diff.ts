/** What changed between two specs of a service, in a few words a field. Pure. */
import { toJson } from "@bufbuild/protobuf";
import { type ServiceSpec, ServiceSpecSchema } from "../../proto/gen/swarm/v1/types_pb.js";

/** Longer values would hide the rest. */
const VALUE_LENGTH_MAX = 60;

/** Twelve digits tell digests apart, as they do ids. */
const DIGEST = /(@sha256:[0-9a-f]{12})[0-9a-f]{52}/;

/**
 * "task.container.image: demo/web:1 → demo/web:2", "labels.tier: + web", "task.container.env: - A=1 + A=2", by the API's own
 * field names, so that nothing a spec can hold is left out.
 */
export function specChanges(before: ServiceSpec, after: ServiceSpec): readonly string[] {
  const [old, now] = [fieldsOf(before), fieldsOf(after)];
  const paths = [...new Set([...old.keys(), ...now.keys()])].sort();
  return paths.flatMap((path) => {
    const [from = [], to = []] = [old.get(path), now.get(path)];
    if (from.length === to.length && from.every((value, index) => value === to[index])) return [];
    if (from.length === 1 && to.length === 1) return [`${path}: ${shown(from[0])} → ${shown(to[0])}`];
    const removed = from.filter((value) => !to.includes(value)).map((value) => `- ${shown(value)}`);
    const added = to.filter((value) => !from.includes(value)).map((value) => `+ ${shown(value)}`);
    return [`${path}: ${[...removed, ...added].join(" ") || "other order"}`];
  });
}

/** Every field's values by its path; a list of words is one field. */
function fieldsOf(spec: ServiceSpec): ReadonlyMap<string, readonly string[]> {
  const fields = new Map<string, readonly string[]>();
  const collect = (path: string, value: unknown): void => {
    if (Array.isArray(value))
      fields.set(
        path,
        value.map((each) => (typeof each === "string" ? each : JSON.stringify(each))),
      );
    else if (typeof value === "object" && value !== null) {
      for (const [key, inner] of Object.entries(value)) collect(path === "" ? key : `${path}.${key}`, inner);
    } else fields.set(path, [String(value)]);
  };
  collect("", toJson(ServiceSpecSchema, spec));
  return fields;
}

function shown(value: string | undefined): string {
  const text = (value ?? "").replace(DIGEST, "$1");
  return text.length > VALUE_LENGTH_MAX ? `${text.slice(0, VALUE_LENGTH_MAX - 1)}…` : text;
}
