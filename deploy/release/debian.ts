/** The Debian package: an installation, what dpkg must know of it, and what is to happen around it (deb(5), Debian policy). */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { compress, writeAr, writeTar } from "./archive.ts";
import type { Architecture, Release } from "./target.ts";
import { bytesOf, file, program, sorted, type Tree, type TreeEntry } from "./tree.ts";

/**
 * Not "swarm": Debian has a package of that name with a higher version (it clusters nucleotide sequences), and apt would put it in the
 * place of ours at the next upgrade.
 */
export const PACKAGE = "swarm-cluster";

/**
 * etcd is recommended, hence there unless somebody says no: a manager starts its own, but workers, most hosts, and managers with
 * --etcd need none.
 */
const RELATIONS = {
  Depends: [
    "libc6 (>= 2.28)",
    "libstdc++6 (>= 5)",
    "nftables (>= 1.0)",
    "systemd | systemd-standalone-sysusers | systemd-sysusers",
    "systemd | systemd-standalone-tmpfiles | systemd-tmpfiles",
  ],
  Recommends: ["etcd-server | etcd (>= 3.4)", "iproute2", "kmod", "systemd-timesyncd | time-daemon"],
} as const;

/** The package's bytes. */
export async function debianPackage(tree: Tree, architecture: Architecture, release: Release): Promise<Buffer> {
  const options = { prefix: "./", mtimeSeconds: release.epochSeconds };
  const [control, data] = await Promise.all([
    compress(writeTar(controlFiles(tree, architecture, release), options)),
    compress(writeTar(tree, options)),
  ]);
  const members = [
    ["debian-binary", Buffer.from("2.0\n")],
    ["control.tar.gz", control],
    ["data.tar.gz", data],
  ] as const;
  return writeAr(members, release.epochSeconds);
}

function controlFiles(tree: Tree, architecture: Architecture, { version, maintainer }: Release): Tree {
  const kibibytes = Math.ceil(bytesOf(tree) / 1024);
  const fields = {
    Package: PACKAGE,
    Version: version,
    Architecture: architecture,
    Maintainer: maintainer,
    "Installed-Size": String(kibibytes),
    Depends: RELATIONS.Depends.join(", "),
    Recommends: RELATIONS.Recommends.join(", "),
    Section: "admin",
    Priority: "optional",
    Description: `cluster orchestrator: managers, agents and swarmctl
 Runs services of containers on a cluster of machines. Managers keep the
 desired state in etcd and schedule tasks onto agents, which run containers
 with their own namespace, cgroup and overlay code. The words, flags and
 defaults of swarmctl are Docker Swarm's.`,
  };
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\n`);
  const script = (name: string): [string, TreeEntry] => [
    name,
    program(readFileSync(new URL(`files/${name}.sh`, import.meta.url))),
  ];
  return new Map([
    ["control", file(lines.join(""))],
    ["conffiles", file(conffiles(tree))],
    ["md5sums", file(md5sums(tree))],
    script("postinst"),
    script("prerm"),
    script("postrm"),
  ]);
}

/** What dpkg leaves as the administrator has it. */
function conffiles(tree: Tree): string {
  return sorted(tree)
    .filter(([path]) => path.startsWith("etc/"))
    .map(([path]) => `/${path}\n`)
    .join("");
}

function md5sums(tree: Tree): string {
  return sorted(tree)
    .flatMap(([path, entry]) =>
      entry.type === "file" ? [`${createHash("md5").update(entry.content).digest("hex")}  ${path}\n`] : [],
    )
    .join("");
}
