/**
 * The list of what is in a release, as CycloneDX 1.6 in JSON (https://cyclonedx.org/docs/1.6/json/): the packages in the bundles, Node,
 * the shim with its C library, and the digest of every file. Pure; the same parts give the same bytes.
 */
import { createHash } from "node:crypto";
import type { NodeBinary } from "./node-binary.ts";
import type { BundledPackage } from "./packages.ts";
import type { Shim } from "./shim.ts";
import { type Architecture, LICENCE, type Release } from "./target.ts";
import { sorted, type Tree } from "./tree.ts";

/** What was put together. */
export interface Parts {
  readonly release: Release;
  readonly architecture: Architecture;
  readonly packages: readonly BundledPackage[];
  readonly node: NodeBinary;
  readonly shim: Shim;
}

interface Component {
  readonly type: "application" | "library" | "file";
  readonly "bom-ref": string;
  readonly name: string;
  readonly version?: string;
  readonly licenses?: readonly unknown[];
  readonly hashes?: readonly { readonly alg: string; readonly content: string }[];
  readonly purl?: string;
  readonly description?: string;
}

/** The document. `tree` is what is installed, without the document itself. */
export function billOfMaterials(parts: Parts, tree: Tree): string {
  const { release, architecture, packages, node, shim } = parts;
  const product: Component = {
    type: "application",
    "bom-ref": "swarm",
    name: "swarm",
    version: release.version,
    licenses: licences(LICENCE),
    purl: `pkg:generic/swarm@${release.version}?arch=${architecture}`,
  };
  const libraries = packages.map(libraryComponent);
  const runtime = nodeComponent(node);
  const native = shimComponents(shim, release);
  const components = [...libraries, runtime, ...native, ...fileComponents(tree)];
  const [shimProgram, library] = native;
  const dependencies = [
    {
      ref: "swarm",
      dependsOn: [...libraries, runtime, shimProgram].flatMap((each) => each?.["bom-ref"] ?? []).toSorted(),
    },
    { ref: "swarm-shim", dependsOn: [library?.["bom-ref"] ?? ""] },
  ];
  const timestamp = new Date(release.epochSeconds * 1000).toISOString();
  const content = { metadata: { timestamp, component: product }, components, dependencies };
  const head = { bomFormat: "CycloneDX", specVersion: "1.6", serialNumber: serialNumber(content), version: 1 };
  return `${JSON.stringify({ ...head, ...content }, undefined, 2)}\n`;
}

function libraryComponent({ name, version, licence, integrity }: BundledPackage): Component {
  const purl = npmUrl(name, version);
  return {
    type: "library",
    "bom-ref": purl,
    name,
    version,
    licenses: licences(licence),
    hashes: [integrityHash(integrity)],
    purl,
  };
}

function nodeComponent({ packageName, version, integrity }: NodeBinary): Component {
  return {
    type: "application",
    "bom-ref": "node",
    name: "node",
    version,
    licenses: licences("MIT"),
    hashes: [integrityHash(integrity)],
    purl: npmUrl(packageName, version),
    description: `Node.js as npm's ${packageName} has it; the hash is that of the package`,
  };
}

function shimComponents({ libraryVersion }: Shim, { version }: Release): readonly Component[] {
  const library: Component = {
    type: "library",
    "bom-ref": "glibc",
    name: "glibc",
    version: libraryVersion,
    licenses: licences("LGPL-2.1-or-later"),
    purl: `pkg:generic/glibc@${libraryVersion}`,
    description: "Linked into swarm-shim",
  };
  const program = { type: "application", "bom-ref": "swarm-shim", name: "swarm-shim", version } as const;
  return [{ ...program, licenses: licences(LICENCE) }, library];
}

function fileComponents(tree: Tree): readonly Component[] {
  return sorted(tree).flatMap(([path, entry]) =>
    entry.type !== "file"
      ? []
      : [
          {
            type: "file",
            "bom-ref": `file:${path}`,
            name: path,
            hashes: [{ alg: "SHA-256", content: sha256(entry.content) }],
          },
        ],
  );
}

function licences(expression: string): readonly unknown[] {
  return [{ expression }];
}

/** A scope's "@" is written as %40 (purl-spec). */
function npmUrl(name: string, version: string): string {
  return `pkg:npm/${name.replace("@", "%40")}@${version}`;
}

/** npm's "sha512-<base64>" as CycloneDX has it. */
function integrityHash(integrity: string): { readonly alg: string; readonly content: string } {
  const [algorithm = "", digest = ""] = integrity.split("-");
  return {
    alg: algorithm.toUpperCase().replace("SHA", "SHA-"),
    content: Buffer.from(digest, "base64").toString("hex"),
  };
}

/** Another number whenever anything else differs: a UUID of version 8 (RFC 9562), made of the content's digest. */
function serialNumber(content: unknown): string {
  const bytes = createHash("sha256").update(JSON.stringify(content)).digest().subarray(0, 16);
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x80;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  return `urn:uuid:${bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5")}`;
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
