/** Which npm packages are really in the bundles, and under which licences. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Metafile } from "esbuild";

const ROOT = new URL("../..", import.meta.url).pathname;

/** What is read of package-lock.json. */
export interface Lock {
  readonly packages: Readonly<
    Record<string, { readonly version?: string; readonly integrity?: string; readonly license?: string } | undefined>
  >;
}

/** A package as it is in the bundles. */
export interface BundledPackage {
  readonly name: string;
  readonly version: string;
  /** An SPDX expression. */
  readonly licence: string;
  /** As package-lock.json has it. */
  readonly integrity: string;
  /** Its own licence files, one after the other; empty when it has none. */
  readonly licenceText: string;
}

export function readLock(): Lock {
  return JSON.parse(readFileSync(join(ROOT, "package-lock.json"), "utf8"));
}

/** The packages with at least one file in a bundle, by name and version. */
export function bundledPackages(metafiles: readonly Metafile[], lock: Lock): readonly BundledPackage[] {
  const inputs = metafiles.flatMap(({ outputs }) =>
    Object.values(outputs).flatMap((output) => Object.entries(output.inputs)),
  );
  const folders = new Set(
    inputs.flatMap(([path, { bytesInOutput }]) => (bytesInOutput > 0 ? packageFolder(path) : [])),
  );
  const packages = [...folders].map((folder) => {
    const { version, integrity, license } = lock.packages[folder] ?? {};
    const name = folder.slice(folder.lastIndexOf("node_modules/") + "node_modules/".length);
    if (version === undefined || integrity === undefined || license === undefined) {
      throw new Error(`package-lock.json does not say which ${name} it is, or under which licence`);
    }
    return { name, version, integrity, licence: license, licenceText: licenceText(join(ROOT, folder)) };
  });
  const key = ({ name, version }: BundledPackage) => `${name}@${version}`;
  const unique = new Map(packages.map((each) => [key(each), each]));
  return [...unique.values()].sort((left, right) => (key(left) < key(right) ? -1 : 1));
}

/** `node_modules/a/node_modules/@b/c/lib/x.js` → `node_modules/a/node_modules/@b/c`. */
export function packageFolder(path: string): readonly string[] {
  const folder = /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0];
  return folder === undefined ? [] : [folder];
}

function licenceText(folder: string): string {
  if (!existsSync(folder)) return "";
  const files = readdirSync(folder).filter((name) => /^(licen[cs]e|notice|copying)/i.test(name));
  return files
    .toSorted()
    .map((name) => readFileSync(join(folder, name), "utf8").trimEnd())
    .join("\n\n");
}
