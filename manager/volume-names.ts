/** Which volumes a spec's mounts name, before their templates are expanded. Pure. */
import { Mount_Type, type ServiceSpec } from "../proto/gen/swarm/v1/types_pb.js";

/** A template that stands for a value and decides nothing. */
const VALUE = /\{\{-?\s*\.[A-Za-z.]+\s*-?\}\}/;

/** The named volumes of a spec's mounts, as they are written. */
export function volumeSources(spec: ServiceSpec | undefined): readonly string[] {
  const mounts = spec?.task?.container?.mounts ?? [];
  return mounts.flatMap(({ type, source }) => (type === Mount_Type.VOLUME && source !== "" ? [source] : []));
}

/** Whether a source, once it is expanded, can be this name: rather yes than no. */
export function mayBecome(source: string, name: string): boolean {
  if (!source.includes("{{")) return source === name;
  const literals = source.split(VALUE);
  if (literals.some((literal) => literal.includes("{{"))) return true;
  const [first = "", ...rest] = literals;
  if (!name.startsWith(first)) return false;
  const last = rest.pop() ?? "";
  let at = first.length;
  for (const literal of rest) {
    const found = name.indexOf(literal, at);
    if (found < 0) return false;
    at = found + literal.length;
  }
  return name.length - last.length >= at && name.endsWith(last);
}
