/** `--mount type=bind,src=/a,dst=/b,readonly`: Docker's long form (docker/cli opts/mount.go). Pure. */
import { create } from "@bufbuild/protobuf";
import { bad, good, type Parsed } from "../../common/model/parsed.ts";
import { parseBytes } from "../../common/model/units.ts";
import { type Mount, Mount_Type, MountSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { type CsvField, parseCsvFields } from "./csv.ts";

const TYPES: Readonly<Record<string, Mount_Type>> = {
  volume: Mount_Type.VOLUME,
  bind: Mount_Type.BIND,
  tmpfs: Mount_Type.TMPFS,
};
const TYPES_REFUSED = ["npipe", "cluster", "image"];

/** Reads the value of one `--mount`. */
export function parseMount(text: string): Parsed<Mount> {
  const fields = parseCsvFields(text);
  if (!fields.ok) return fields;
  const mount = create(MountSchema, {});
  for (const field of fields.value) {
    const problem = setField(mount, field);
    if (problem !== undefined) return bad(problem);
  }
  if (mount.target === "") return bad("target is required");
  if (mount.type === Mount_Type.BIND && mount.source === "") return bad("source is required for a bind mount");
  return misplaced(fields.value, mount) ?? good(mount);
}

/** Options of another type are mistakes that must not pass unseen. */
function misplaced(fields: readonly CsvField[], mount: Mount): Parsed<Mount> | undefined {
  const owner = Object.keys(TYPES).find((name) => TYPES[name] === mount.type);
  for (const { key } of fields) {
    const prefix = key.split("-")[0] ?? "";
    if (Object.hasOwn(TYPES, prefix) && key.includes("-") && prefix !== owner) {
      return bad(`cannot mix '${key}' with mount type '${owner}'`);
    }
  }
  return undefined;
}

function setField(mount: Mount, { key, value }: CsvField): string | undefined {
  switch (key) {
    case "readonly":
    case "ro":
      return setSwitch(key, value, (on) => {
        mount.readOnly = on;
      });
    case "volume-nocopy":
      return setSwitch(key, value, (on) => {
        mount.volumeNoCopy = on;
      });
    case "volume-sticky":
      return setSwitch(key, value, (on) => {
        mount.volumeSticky = on;
      });
    case "bind-create-src":
      return setSwitch(key, value, (on) => {
        mount.createSource = on;
      });
    case "bind-nonrecursive":
      return setSwitch(key, value, (on) => {
        mount.bindNonRecursive = on;
      });
  }
  return value === undefined ? `invalid field '${key}' must be a key=value pair` : setText(mount, key, value);
}

function setText(mount: Mount, key: string, value: string): string | undefined {
  switch (key) {
    case "type":
      return setType(mount, value.toLowerCase());
    case "source":
    case "src":
      mount.source = value;
      return undefined;
    case "target":
    case "dst":
    case "destination":
      mount.target = value;
      return undefined;
    case "bind-propagation":
      mount.propagation = value.toLowerCase();
      return undefined;
    case "bind-recursive":
      if (value === "enabled" || value === "disabled") {
        mount.bindNonRecursive = value === "disabled";
        return undefined;
      }
      return `invalid value for bind-recursive: ${JSON.stringify(value)} (enabled or disabled)`;
    case "tmpfs-size":
      return setSize(mount, value);
    case "tmpfs-mode":
      if (!/^[0-7]{1,5}$/.test(value)) return `invalid value for tmpfs-mode: ${JSON.stringify(value)}`;
      mount.tmpfsMode = Number.parseInt(value, 8);
      return undefined;
    case "volume-driver":
      mount.volumeDriver = value;
      return undefined;
    case "volume-subpath":
      mount.volumeSubpath = value;
      return undefined;
    case "volume-opt":
      mount.volumeOptions = { ...mount.volumeOptions, ...pairOf(value) };
      return undefined;
    case "volume-label":
      mount.volumeLabels = { ...mount.volumeLabels, ...pairOf(value) };
      return undefined;
    default:
      return `unexpected key '${key}'`;
  }
}

function setType(mount: Mount, name: string): string | undefined {
  if (TYPES_REFUSED.includes(name)) return `mount type '${name}' is not supported`;
  const type = Object.hasOwn(TYPES, name) ? TYPES[name] : undefined;
  if (type === undefined) return `invalid mount type '${name}': volume, bind or tmpfs`;
  mount.type = type;
  return undefined;
}

function setSize(mount: Mount, value: string): string | undefined {
  const bytes = parseBytes(value);
  if (!bytes.ok) return `invalid value for tmpfs-size: ${bytes.problem}`;
  mount.tmpfsSizeBytes = BigInt(bytes.value);
  return undefined;
}

function setSwitch(key: string, value: string | undefined, set: (on: boolean) => void): string | undefined {
  if (value === undefined || value === "true" || value === "1") set(true);
  else if (value === "false" || value === "0") set(false);
  else return `invalid value for ${key}: ${JSON.stringify(value)}`;
  return undefined;
}

function pairOf(text: string): Readonly<Record<string, string>> {
  const equals = text.indexOf("=");
  return equals < 0 ? { [text]: "" } : { [text.slice(0, equals)]: text.slice(equals + 1) };
}
