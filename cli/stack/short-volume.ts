/** `data:/var/lib/data:ro` → a mount in its long form (docker/cli cli/compose/loader/volume.go). Pure. */
import { absolutePath } from "./normalise.ts";
import type { Normalise, Site } from "./rule.ts";
import { child, mapping, type ScalarNode, scalar, type Tree, textOf, withEntry } from "./tree.ts";

const PROPAGATIONS = ["rprivate", "private", "rshared", "shared", "rslave", "slave"];
/** How macOS's file sharing may lag: nothing on Linux. */
const CONSISTENCIES = ["consistent", "cached", "delegated"];

/** A service's mount in its long form, its bind source as an absolute path. */
export const asMount: Normalise = (node, site) => {
  const mount = node.kind === "scalar" ? readShort(node, site) : node;
  if (textOf(child(mount, "type")) !== "bind" || mount.kind !== "map") return mount;
  const source = child(mount, "source");
  const path = textOf(source);
  if (source === undefined || path === undefined || path === "") {
    site.problem(mount, `invalid mount config for type "bind": field Source must not be empty`);
    return mount;
  }
  return withEntry(mount, "source", scalar(absolutePath(path, site), source.place));
};

function readShort(node: ScalarNode, site: Site): Tree {
  const refuse = (reason: string) => {
    site.problem(node, `invalid spec: ${JSON.stringify(node.text)}: ${reason}`);
    return node;
  };
  const parts = splitColons(node.text);
  if (node.text === "") return refuse("invalid empty volume spec");
  if (parts.includes("")) return refuse("empty section between colons");
  if (parts.length > 3) return refuse("too many colons");
  const [first = "", target, options = ""] = parts;
  const place = node.place;
  const text = (value: string) => scalar(value, place);
  if (target === undefined) return mapping({ type: text("volume"), target: text(first) }, place);
  const bind = /^[./~]/.test(first) || isDrive(first);
  const fields: Record<string, Tree> = {
    type: text(bind ? "bind" : "volume"),
    source: text(first),
    target: text(target),
  };
  for (const option of options === "" ? [] : options.split(",")) {
    const problem = addOption(fields, option, bind, place);
    if (problem !== undefined) return refuse(problem);
  }
  return mapping(fields, place);
}

function addOption(
  fields: Record<string, Tree>,
  option: string,
  bind: boolean,
  place: Tree["place"],
): string | undefined {
  if (option === "ro") fields.read_only = scalar(true, place);
  else if (option === "rw") delete fields.read_only;
  else if (option === "nocopy") fields.volume = mapping({ nocopy: scalar(true, place) }, place);
  else if (PROPAGATIONS.includes(option)) fields.bind = mapping({ propagation: scalar(option, place) }, place);
  else if ((option === "z" || option === "Z") && bind) fields.bind = mapping({ selinux: scalar(option, place) }, place);
  else if (option === "z" || option === "Z" || CONSISTENCIES.includes(option)) return undefined;
  else return `unknown option ${JSON.stringify(option)}`;
  return undefined;
}

/** Splits at colons, but not behind a Windows drive. */
function splitColons(text: string): readonly string[] {
  return text.split(/(?<!^[a-zA-Z](?=:\\)):/);
}

function isDrive(text: string): boolean {
  return /^[a-zA-Z]:\\/.test(text);
}
