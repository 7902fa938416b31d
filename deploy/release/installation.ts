/**
 * What lies where on a host. Below `lib/swarm` it is the checkout's own layout, less the sources: the same wrappers start the same bundles,
 * and whatever finds a file by its place in the checkout finds it there too.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { COMPLETION_SCRIPTS } from "../../cli/completion-scripts.ts";
import { compress } from "./archive.ts";
import { manual } from "./man-pages.ts";
import { billOfMaterials, type Parts } from "./sbom.ts";
import { dateOf, LICENCE } from "./target.ts";
import { file, link, program, type Tree, type TreeEntry } from "./tree.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
const FILES = join(ROOT, "deploy/release/files");

/** Who brings the files: that decides where they may lie (FHS 3.0; systemd's file-hierarchy(7)). */
export interface Layout {
  /** "usr" for a package of the distribution's kind, "usr/local" for what an administrator installs. */
  readonly prefix: "usr" | "usr/local";
  /** systemd reads these two below /usr and /etc only. */
  readonly systemd: { readonly sysusers: string; readonly tmpfiles: string };
  readonly zshFunctions: string;
  /** Of the documentation below share/doc. */
  readonly name: string;
}

export const DEBIAN: Layout = {
  prefix: "usr",
  systemd: { sysusers: "usr/lib/sysusers.d", tmpfiles: "usr/lib/tmpfiles.d" },
  zshFunctions: "usr/share/zsh/vendor-completions",
  name: "swarm-cluster",
};

export const LOCAL: Layout = {
  prefix: "usr/local",
  systemd: { sysusers: "etc/sysusers.d", tmpfiles: "etc/tmpfiles.d" },
  zshFunctions: "usr/local/share/zsh/site-functions",
  name: "swarm",
};

/** The bundles by their file names, and the two things that are read beside them. */
export type Bundles = ReadonlyMap<string, Uint8Array>;

const WRAPPERS = ["cli/swarmctl", "manager/swarm-manager", "agent/swarm-agent"];
const UNITS = ["swarm-manager.service", "swarm-agent.service"];

/** Everything that is installed, the list of its parts included. */
export async function installation(parts: Parts, bundles: Bundles, layout: Layout): Promise<Tree> {
  const tree = new Map([
    ...library(parts, bundles, layout),
    ...integration(layout),
    ...(await manualPages(parts, layout)),
    ...documents(parts, layout),
  ]);
  tree.set(`${layout.prefix}/share/doc/${layout.name}/sbom.cdx.json`, file(billOfMaterials(parts, tree)));
  return tree;
}

function library({ release, node, shim }: Parts, bundles: Bundles, { prefix }: Layout): Tree {
  const manifest = { name: "swarm", version: release.version, license: LICENCE };
  const inside: [string, TreeEntry][] = [
    ["package.json", file(`${JSON.stringify(manifest, undefined, 2)}\n`)],
    ["bin/node", program(node.program)],
    ["agent/shim/build/swarm-shim", program(shim.program)],
    ["deploy/start.sh", file(readFileSync(join(ROOT, "deploy/start.sh")))],
    ["deploy/end-containers", program(ownFile("end-containers.sh"))],
    ["deploy/await-socket", program(ownFile("await-socket.sh"))],
    ...WRAPPERS.map((path) => [path, program(readFileSync(join(ROOT, path)))] as [string, TreeEntry]),
    ...[...bundles].map(([path, content]) => [path, file(content)] as [string, TreeEntry]),
  ];
  const commands = WRAPPERS.map((path) => {
    const name = path.slice(path.indexOf("/") + 1);
    return [`${prefix}/bin/${name}`, link(`../lib/swarm/${path}`)] as const;
  });
  return new Map([...inside.map(([path, entry]) => [`${prefix}/lib/swarm/${path}`, entry] as const), ...commands]);
}

/** systemd's files, the shells' completions, and the operator's own options. */
function integration({ prefix, systemd, zshFunctions }: Layout): Tree {
  const units = UNITS.map((name) => {
    const unit = ownFile(name)
      .toString()
      .replaceAll(/\/usr\/(bin|lib\/swarm)\//g, `/${prefix}/$1/`);
    return [`${prefix}/lib/systemd/system/${name}`, file(unit)] as const;
  });
  const completion = (shell: string) => file(COMPLETION_SCRIPTS[shell] ?? "");
  return new Map([
    ...units,
    [`${systemd.sysusers}/swarm.conf`, file(ownFile("sysusers.conf"))],
    [`${systemd.tmpfiles}/swarm.conf`, file(ownFile("tmpfiles.conf"))],
    ["etc/default/swarm-manager", file(ownFile("default-swarm-manager"))],
    ["etc/default/swarm-agent", file(ownFile("default-swarm-agent"))],
    [`${prefix}/share/bash-completion/completions/swarmctl`, completion("bash")],
    [`${zshFunctions}/_swarmctl`, completion("zsh")],
    [`${prefix}/share/fish/vendor_completions.d/swarmctl.fish`, completion("fish")],
  ]);
}

async function manualPages({ release }: Parts, { prefix }: Layout): Promise<Tree> {
  const pages = await manual(release.version, dateOf(release));
  const entries = pages.map(async ({ name, section, source }) => {
    const path = `${prefix}/share/man/man${section}/${name}.${section}.gz`;
    const own = source.replaceAll("/usr/lib/swarm", `/${prefix}/lib/swarm`);
    return [path, file(await compress([Buffer.from(own)]))] as const;
  });
  return new Map(await Promise.all(entries));
}

/** The licences of all that is in it. */
function documents({ packages, node, shim }: Parts, { prefix, name }: Layout): Tree {
  const folder = `${prefix}/share/doc/${name}`;
  const list = packages.map((each) => `  ${each.name} ${each.version}: ${each.licence}`).join("\n");
  const copyright = `${ownFile("copyright").toString().trimEnd()}\n
Node.js ${node.version}: MIT, and the licences of its parts; see licences/node.
GNU C Library ${shim.libraryVersion}, linked into swarm-shim: LGPL-2.1-or-later. Its source, and the shim's for linking it anew, are
Debian's glibc and this project's agent/shim.

In the programs' bundles, with the licences below licences/:
${list}
`;
  const texts = packages.map(({ name: owner, licence, licenceText }) => {
    const text =
      licenceText === "" ? `${owner} is distributed under ${licence}; its package holds no text of it.` : licenceText;
    return [`${folder}/licences/${owner.replace("/", "__")}`, file(`${text}\n`)] as const;
  });
  return new Map([
    [`${folder}/copyright`, file(copyright)],
    [`${folder}/licences/swarm`, file(readFileSync(join(ROOT, "LICENSE")))],
    [`${folder}/licences/node`, file(node.licence)],
    ...texts,
  ]);
}

function ownFile(name: string): Buffer {
  return readFileSync(join(FILES, name));
}
