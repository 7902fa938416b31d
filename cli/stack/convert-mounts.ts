/** A service's `volumes` and `tmpfs` → mounts (docker/cli cli/compose/convert/volume.go). */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { parseBytes } from "../../common/model/units.ts";
import { Mount_Type, type MountSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { bytesOf, recordOf } from "./convert-container.ts";
import { type ServiceSite, scopedName } from "./site.ts";
import { child, descend, flagOf, isNull, itemsOf, numberOf, type Tree, textOf } from "./tree.ts";

type MountInit = MessageInitShape<typeof MountSchema>;

/** Every mount: those of `volumes`, then those of `tmpfs`. */
export function convertMounts(site: ServiceSite): MountInit[] {
  const mounts: MountInit[] = [];
  const add = (item: Tree, path: string, mount: MountInit | undefined) => {
    if (mount === undefined) return;
    site.note(`mounts[${mounts.length}]`, item, path);
    mounts.push(mount);
  };
  itemsOf(site.at("volumes")).forEach((item, index) => {
    add(item, `volumes[${index}]`, convertMount(site, item, `volumes[${index}]`));
  });
  itemsOf(site.at("tmpfs")).forEach((item, index) => {
    add(item, `tmpfs[${index}]`, convertTmpfsLine(site, item, `tmpfs[${index}]`));
  });
  return mounts;
}

function convertMount(site: ServiceSite, item: Tree, path: string): MountInit | undefined {
  const type = textOf(child(item, "type")) ?? "";
  const common = {
    target: textOf(child(item, "target")) ?? "",
    readOnly: flagOf(child(item, "read_only")) ?? false,
  };
  refuseForeign(site, item, path, type);
  switch (type) {
    case "bind":
      return { ...common, ...bindOf(site, item, path) };
    case "tmpfs":
      return { ...common, ...tmpfsOf(site, item, path) };
    case "volume":
      return { ...common, ...volumeOf(site, item, path) };
    default:
      site.refuse(child(item, "type") ?? item, `${path}.type`, `mount type '${type}' is not supported`);
      return undefined;
  }
}

/** Options of another type would be lost. */
function refuseForeign(site: ServiceSite, item: Tree, path: string, type: string): void {
  for (const name of ["bind", "volume", "tmpfs", "image"]) {
    const options = child(item, name);
    if (options !== undefined && name !== type) {
      site.refuse(options, `${path}.${name}`, `${name} options are incompatible with type ${type}`);
    }
  }
}

function bindOf(site: ServiceSite, item: Tree, path: string): MountInit {
  const bind = child(item, "bind");
  const selinux = child(bind, "selinux");
  if (selinux !== undefined) site.refuse(selinux, `${path}.bind.selinux`, "SELinux labels are not supported");
  const recursive = child(bind, "recursive");
  const how = textOf(recursive);
  if (recursive !== undefined && (how === "writable" || how === "readonly")) {
    site.refuse(recursive, `${path}.bind.recursive`, `${JSON.stringify(how)} is not supported: enabled or disabled`);
  }
  return {
    type: Mount_Type.BIND,
    source: textOf(child(item, "source")) ?? "",
    propagation: textOf(child(bind, "propagation")) ?? "",
    bindNonRecursive: how === "disabled",
    createSource: flagOf(child(bind, "create_host_path")) ?? false,
  };
}

function tmpfsOf(site: ServiceSite, item: Tree, path: string): MountInit {
  const source = child(item, "source");
  if (source !== undefined) site.refuse(source, `${path}.source`, "invalid tmpfs source, source must be empty");
  const tmpfs = child(item, "tmpfs");
  return {
    type: Mount_Type.TMPFS,
    tmpfsSizeBytes: bytesOf(child(tmpfs, "size")),
    tmpfsMode: numberOf(child(tmpfs, "mode")) ?? 0,
  };
}

function volumeOf(site: ServiceSite, item: Tree, path: string): MountInit {
  const { file, stack } = site.context;
  const options = child(item, "volume");
  const ofMount = {
    type: Mount_Type.VOLUME,
    volumeNoCopy: flagOf(child(options, "nocopy")) ?? false,
    volumeSubpath: textOf(child(options, "subpath")) ?? "",
    volumeLabels: recordOf(child(options, "labels")),
  };
  const source = child(item, "source");
  const key = textOf(source);
  if (source === undefined || key === undefined || key === "") return ofMount;
  const volumes = child(file, "volumes");
  const declared = volumes?.kind === "map" ? volumes.entries.get(key)?.value : undefined;
  if (declared === undefined) {
    site.refuse(source, `${path}.source`, `undefined volume ${JSON.stringify(key)}: declare it under volumes`);
    return ofMount;
  }
  if (isNull(declared)) return { ...ofMount, source: scopedName(stack, key, undefined) };
  const name = scopedName(stack, key, textOf(child(declared, "name")));
  // The stack makes it, as it is declared; one whose name each task makes up is made by the tasks.
  if (flagOf(child(declared, "external")) === true || !name.includes("{{")) return { ...ofMount, source: name };
  return {
    ...ofMount,
    source: name,
    volumeDriver: textOf(child(declared, "driver")) ?? "",
    volumeOptions: recordOf(descend(declared, "driver_opts")),
    volumeLabels: { ...recordOf(child(declared, "labels")), ...ofMount.volumeLabels },
  };
}

/** What every tmpfs of a container has anyway. */
const TMPFS_ALWAYS = ["rw", "noexec", "nosuid", "nodev"];

/** `/run:size=64m,mode=1777` (docker run --tmpfs). */
function convertTmpfsLine(site: ServiceSite, item: Tree, path: string): MountInit | undefined {
  const [, target = "", options = ""] = /^([^:]*)(?::(.*))?$/s.exec(textOf(item) ?? "") ?? [];
  let [size, mode, readOnly] = [0n, 0, false];
  for (const option of options === "" ? [] : options.split(",")) {
    const [, key = "", value = ""] = /^([^=]*)=?(.*)$/s.exec(option) ?? [];
    const bytes = key === "size" ? parseBytes(value) : undefined;
    if (bytes?.ok) size = BigInt(bytes.value);
    else if (key === "mode" && /^[0-7]{1,5}$/.test(value)) mode = Number.parseInt(value, 8);
    else if (option === "ro") readOnly = true;
    else if (!TMPFS_ALWAYS.includes(option)) {
      site.refuse(
        item,
        path,
        `tmpfs option ${JSON.stringify(option)} is not supported: size, mode, ro, ${TMPFS_ALWAYS.join(", ")}`,
      );
      return undefined;
    }
  }
  return { type: Mount_Type.TMPFS, target, readOnly, tmpfsSizeBytes: size, tmpfsMode: mode };
}
