/** Options of local volumes: what `docker volume create --opt` knows (moby volume/local). Pure. */
import { bad, good, type Parsed } from "./parsed.ts";
import { lineProblem } from "./text.ts";
import { quoted } from "./units.ts";

/** Attributes of a mount, by mount(8)'s names. */
export const VOLUME_ATTRIBUTES = [
  "ro",
  "nosuid",
  "nodev",
  "noexec",
  "noatime",
  "nodiratime",
  "strictatime",
  "nosymfollow",
] as const;
type VolumeAttribute = (typeof VOLUME_ATTRIBUTES)[number];

/** Where a volume's data is. */
export type VolumeSource =
  /** A directory of the node's own, made when it is first used. */
  | { readonly kind: "directory" }
  /** A directory of the host that must be there. */
  | { readonly kind: "bind"; readonly device: string; readonly readOnly: boolean; readonly recursive: boolean }
  /** A file system, mounted once per node. */
  | {
      readonly kind: "mount";
      readonly type: string;
      readonly device: string;
      readonly options: readonly string[];
      readonly attributes: readonly VolumeAttribute[];
    };

const KEYS = ["type", "device", "o"];
const VALUE_LENGTH_MAX = 4096;
/** What happens without being asked for. */
const DEFAULTS = ["defaults", "rw", "suid", "dev", "exec", "atime", "diratime", "relatime"];
/** Words of mount(8) that are no file system's: they act on mounts that exist. */
const NOT_HERE = [
  "remount",
  "move",
  "private",
  "slave",
  "shared",
  "unbindable",
  "rprivate",
  "rslave",
  "rshared",
  "loop",
];

/** File systems that lie on other hosts: their data is the same from every node. */
export function isRemote(source: VolumeSource): boolean {
  return source.kind === "mount" && /^(nfs4?|cifs|smb3|ceph|9p|glusterfs|fuse\..+)$/.test(source.type);
}

/** Reads a local volume's options; says what is wrong with them, in Docker's words where it has some. */
export function readVolumeOptions(options: Readonly<Record<string, string>>): Parsed<VolumeSource> {
  for (const [key, value] of Object.entries(options)) {
    if (key === "size") return bad('"size": quotas of volumes are not supported');
    if (!KEYS.includes(key)) return bad(`invalid option: ${quoted(key)} (type, device, o)`);
    const problem = lineProblem(value, VALUE_LENGTH_MAX);
    if (problem !== undefined) return bad(`${key}: ${problem}`);
  }
  const { type = "", device = "", o = "" } = options;
  if (type === "" && device === "" && o === "") return good({ kind: "directory" });
  if (device === "") return bad('missing required option: "device"');
  const words = o.split(",").filter((word) => word !== "");
  const wrong = words.find((word) => NOT_HERE.includes(word));
  if (wrong !== undefined) return bad(`o: ${quoted(wrong)} is not an option of a volume`);
  if (words.includes("bind") || words.includes("rbind")) return readBind(type, device, words);
  if (type === "") return bad('missing required option: "type"');
  if (!/^[a-z0-9][a-z0-9_.-]{0,63}$/.test(type) || type === "none") {
    return bad(
      `type: ${quoted(type)} is not a file system${type === "none" ? " (with o=bind it is a directory)" : ""}`,
    );
  }
  return good({
    kind: "mount",
    type,
    device,
    options: words.filter((word) => !isAttribute(word) && !DEFAULTS.includes(word)),
    attributes: VOLUME_ATTRIBUTES.filter((attribute) => words.includes(attribute)),
  });
}

function readBind(type: string, device: string, words: readonly string[]): Parsed<VolumeSource> {
  if (type !== "none" && type !== "" && type !== "bind") return bad(`type: ${quoted(type)} with o=bind: must be none`);
  if (!device.startsWith("/")) return bad(`device: ${quoted(device)} is not an absolute path`);
  const foreign = words.find((word) => !["bind", "rbind", "ro", ...DEFAULTS].includes(word));
  if (foreign !== undefined) return bad(`o: ${quoted(foreign)} cannot be had with bind`);
  return good({ kind: "bind", device, readOnly: words.includes("ro"), recursive: words.includes("rbind") });
}

function isAttribute(word: string): word is VolumeAttribute {
  return (VOLUME_ATTRIBUTES as readonly string[]).includes(word);
}
