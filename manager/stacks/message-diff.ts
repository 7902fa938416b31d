/**
 * What differs between two messages of one type, field by field, found by the schema: a field that a later version adds is
 * shown without a word here. Paths are what people call things: "image", "env.LEVEL", "ports[80/tcp].publishedPort". Pure.
 */
import { create, type DescField, type DescMessage, type Message } from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import type { Duration } from "@bufbuild/protobuf/wkt";
import { formatDurationMs } from "../../common/model/units.ts";
import { type FieldChange, FieldChangeSchema } from "../../proto/gen/swarm/v1/control_pb.js";

/** What stands for a value that must not be shown. */
const HIDDEN = "(hidden)";
/** Fields whose values are secret. */
const SECRET_FIELDS: ReadonlySet<string> = new Set(["registryAuth"]);
/** Ids stand beside names that say the same. */
const IGNORED: ReadonlySet<string> = new Set(["secretId", "configId"]);
/** Messages that are only a way to what people mean. */
const TRANSPARENT: ReadonlySet<string> = new Set([
  "task",
  "container",
  "endpoint",
  "pullOptions",
  "mode",
  "replicated",
]);

/** What tells the items of a list of messages apart, by the message's type; others go by their place. */
const ITEM_KEYS: Readonly<Record<string, readonly string[]>> = {
  "swarm.v1.PortConfig": ["targetPort", "protocol"],
  "swarm.v1.Mount": ["target"],
  "swarm.v1.NetworkAttachmentConfig": ["target"],
  "swarm.v1.SecretReference": ["secretName"],
  "swarm.v1.ConfigReference": ["configName"],
  "swarm.v1.Ulimit": ["name"],
  "swarm.v1.Device": ["hostPath"],
  "swarm.v1.ServiceDependency": ["service"],
};

/** The fields of `before` and `after` that differ, in order of path. */
export function diffMessages<T extends Message>(schema: DescMessage, before: T, after: T): FieldChange[] {
  const [old, now] = [fieldsOf(schema, before), fieldsOf(schema, after)];
  const paths = [...new Set([...old.keys(), ...now.keys()])].sort();
  return paths.flatMap((path) => {
    const [from, to] = [old.get(path), now.get(path)];
    if (from === to) return [];
    const hidden = SECRET_FIELDS.has(path);
    return [
      create(FieldChangeSchema, {
        path,
        ...(from === undefined ? {} : { before: hidden ? HIDDEN : from }),
        ...(to === undefined ? {} : { after: hidden ? HIDDEN : to }),
      }),
    ];
  });
}

type Fields = Map<string, string>;

function fieldsOf(schema: DescMessage, message: Message): Fields {
  const fields: Fields = new Map();
  collect(reflect(schema, message), "", fields);
  return fields;
}

function collect(message: ReflectMessage, path: string, fields: Fields): void {
  for (const field of message.fields) {
    if (!message.isSet(field) || IGNORED.has(field.localName)) continue;
    const name = TRANSPARENT.has(field.localName) ? path : joined(path, field.localName);
    collectField(message, field, name, fields);
  }
}

function collectField(message: ReflectMessage, field: DescField, path: string, fields: Fields): void {
  switch (field.fieldKind) {
    case "scalar":
      fields.set(path, textOf(message.get(field)));
      return;
    case "enum":
      fields.set(path, enumText(field, message.get(field)));
      return;
    case "message":
      collectMessage(message.get(field), path, fields);
      return;
    case "map":
      for (const [key, value] of message.get(field)) {
        if (field.mapKind === "message") collectMessage(value as ReflectMessage, `${path}.${String(key)}`, fields);
        else fields.set(`${path}.${String(key)}`, textOf(value));
      }
      return;
    case "list":
      if (field.listKind === "message") collectItems([...message.get(field)] as ReflectMessage[], path, fields);
      else collectWords(field.localName, [...message.get(field)], path, fields);
  }
}

function collectMessage(message: ReflectMessage, path: string, fields: Fields): void {
  if (message.desc.typeName === "google.protobuf.Duration") {
    const { seconds, nanos } = message.message as Duration;
    fields.set(path, formatDurationMs(Number(seconds) * 1000 + nanos / 1_000_000));
    return;
  }
  const size = fields.size;
  collect(message, path, fields);
  // That an empty message is there may say something: `mode: global`.
  if (fields.size === size && path !== "") fields.set(path, "{}");
}

function collectItems(items: readonly ReflectMessage[], path: string, fields: Fields): void {
  const seen = new Map<string, number>();
  items.forEach((item, index) => {
    const key = itemKey(item) ?? String(index);
    const count = (seen.get(key) ?? 0) + 1;
    seen.set(key, count);
    collectMessage(item, `${path}[${count === 1 ? key : `${key} #${count}`}]`, fields);
  });
}

/** Variables by name; other lists of words are one value, since their order counts. */
function collectWords(name: string, words: readonly unknown[], path: string, fields: Fields): void {
  if (name !== "env") {
    fields.set(path, `[${words.map((word) => JSON.stringify(textOf(word))).join(", ")}]`);
    return;
  }
  for (const word of words) {
    const text = textOf(word);
    const equals = text.indexOf("=");
    fields.set(`${path}.${equals < 0 ? text : text.slice(0, equals)}`, equals < 0 ? "" : text.slice(equals + 1));
  }
}

function itemKey(item: ReflectMessage): string | undefined {
  const names = ITEM_KEYS[item.desc.typeName];
  return names
    ?.map((name) => {
      const field = item.fields.find(({ localName }) => localName === name);
      if (field === undefined) return "";
      return field.fieldKind === "enum" ? enumText(field, item.get(field)) : textOf(item.get(field));
    })
    .join("/");
}

function enumText(field: DescField & { readonly fieldKind: "enum" }, value: unknown): string {
  const name = field.enum.values.find(({ number }) => number === value)?.localName ?? textOf(value);
  return name.toLowerCase().replaceAll("_", "-");
}

function textOf(value: unknown): string {
  return value instanceof Uint8Array ? `${value.length} bytes` : String(value);
}

function joined(path: string, name: string): string {
  return path === "" ? name : name === "" ? path : `${path}.${name}`;
}

type Words = Readonly<Record<string, string>>;

/** The entries of two maps that differ. */
export function diffMaps(path: string, before: Words, after: Words): FieldChange[] {
  return [...new Set([...Object.keys(before), ...Object.keys(after)])].sort().flatMap((key) => {
    const [from, to] = [before[key], after[key]];
    if (from === to) return [];
    const values = { ...(from === undefined ? {} : { before: from }), ...(to === undefined ? {} : { after: to }) };
    return [create(FieldChangeSchema, { path: `${path}.${key}`, ...values })];
  });
}
