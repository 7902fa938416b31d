// Goal: an image is there whole or not at all, whatever is pulled at once, given up, crashed or collected.
// Method: a real store and shim in a temporary directory, images served from memory.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { lstatSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect } from "vitest";
import { SwarmError } from "../../common/base/error.ts";
import { FakeClock } from "../../common/base/fake-clock.ts";
import { eventually } from "../../test/eventually.ts";
import { buildParts, busyboxFiles, descriptorOf, jsonBlob } from "../../test/images.ts";
import { rootTest } from "../../test/privileges.ts";
import { directory, file, hardlink, symlink } from "../../test/tar.ts";
import { MemorySource, NEVER, reference, TestDirectory } from "./test-store.ts";

const PASSWD = "root:x:0:0:root:/root:/bin/sh\n";

const twoLayers = buildParts({
  name: "demo/web:1",
  config: { Cmd: ["/bin/httpd"], Env: ["A=b"], Labels: { "swarm.secret": "no" } },
  layers: [
    {
      files: [
        directory("etc"),
        file("etc/passwd", PASSWD),
        file("etc/group", "root:x:0:\n"),
        directory("bin", 0o711),
        file("bin/tool", "tool", 0o4755),
        hardlink("bin/tool", "bin/same"),
        symlink("/bin/tool", "bin/link"),
        directory("old"),
        file("old/gone", "x"),
      ],
    },
    { files: [file("etc/.wh.group", ""), file("old/.wh..wh..opq", ""), file("old/new", "y")], compression: "zstd" },
  ],
});

describe("a pull", () => {
  rootTest("unpacks layers in overlayfs's form and tells what a container needs", async () => {
    await using at = new TestDirectory();
    const store = await at.open();
    const source = new MemorySource().add("demo/web:1", twoLayers);
    const image = await store.ensureImage(reference("demo/web:1"), source, NEVER);

    expect(image).toMatchObject({
      reference: "docker.io/demo/web:1",
      manifestDigest: twoLayers.manifest.digest,
      config: { command: ["/bin/httpd"], env: ["A=b"] },
      passwd: PASSWD,
      group: undefined,
    });
    expect(JSON.stringify(image.config)).not.toContain("secret");
    const [lower = "", upper = ""] = image.layerDirs;
    expect(statSync(join(lower, "bin/tool")).mode & 0o7777).toBe(0o4755);
    expect(statSync(join(lower, "bin")).mode & 0o7777).toBe(0o711);
    expect(statSync(join(lower, "bin/tool")).mtimeMs).toBe(1_700_000_000_000);
    expect(statSync(join(lower, "bin")).mtimeMs).toBe(1_700_000_000_000);
    expect(statSync(join(lower, "bin/same")).ino).toBe(statSync(join(lower, "bin/tool")).ino);
    expect(readlinkSync(join(lower, "bin/link"))).toBe("/bin/tool");
    const whiteout = lstatSync(join(upper, "etc/group"));
    expect([whiteout.isCharacterDevice(), whiteout.rdev]).toEqual([true, 0]);
    expect(readdirSync(join(upper, "old"))).toEqual(["new"]);
    expect(statSync(at.images).mode & 0o777).toBe(0o700);
    expect(readdirSync(join(at.images, "ingest"))).toEqual([]);
  });

  rootTest("brings each layer once, however many ask and however many images have it", async () => {
    await using at = new TestDirectory();
    const store = await at.open();
    const other = buildParts({
      name: "demo/other:1",
      config: { Cmd: ["other"] },
      layers: [{ files: busyboxFiles() }, { files: [file("other", "")] }],
    });
    const base = buildParts({ name: "demo/base:1", layers: [{ files: busyboxFiles() }] });
    const source = new MemorySource().add("demo/base:1", base).add("demo/other:1", other);
    const names = ["demo/base:1", "demo/other:1", "demo/base:1", "demo/other:1", "demo/base:1"];
    const images = await Promise.all(names.map((name) => store.ensureImage(reference(name), source, NEVER)));
    expect(source.streamed.toSorted()).toEqual(other.layers.map(({ digest }) => digest).toSorted());
    expect(images[1]?.layerDirs[0]).toBe(images[0]?.layerDirs[0]);
    expect(store.list()).toHaveLength(2);
  });

  rootTest("chooses this platform from an index, and says when there is none", async () => {
    await using at = new TestDirectory();
    const store = await at.open({ platform: { os: "linux", architecture: "amd64" } });
    const image = buildParts({ name: "a", architecture: "amd64", layers: [{ files: [file("x", "1")] }] });
    const foreign = buildParts({ name: "a", architecture: "s390x", layers: [{ files: [file("x", "2")] }] });
    const entry = (built: typeof image, architecture: string) => ({
      ...descriptorOf(built.manifest),
      platform: { os: "linux", architecture },
    });
    const index = (...manifests: readonly unknown[]) => {
      const mediaType = "application/vnd.oci.image.index.v1+json";
      return jsonBlob(mediaType, { schemaVersion: 2, mediaType, manifests });
    };
    const both = index(entry(foreign, "s390x"), entry(image, "amd64"));
    const source = new MemorySource()
      .add("a:1", image, both)
      .add("a:2", foreign, index(entry(foreign, "s390x")))
      .add("a:3", foreign);
    const found = await store.ensureImage(reference("a:1"), source, NEVER);
    expect(found.manifestDigest).toBe(image.manifest.digest);
    // Pinned by the index's digest it is here now, though nobody can be asked.
    const pinned = await store.ensureImage(reference(`a:1@${both.digest}`), new MemorySource(), NEVER);
    expect(pinned.manifestDigest).toBe(image.manifest.digest);
    for (const name of ["a:2", "a:3"]) {
      await expect(store.ensureImage(reference(name), source, NEVER)).rejects.toThrow(
        `no matching manifest for linux/amd64 in ${name}`,
      );
    }
  });

  rootTest("tells what is at hand without asking, asks for a tag each time, and says when there is none", async () => {
    await using at = new TestDirectory();
    const store = await at.open();
    await store.ensureImage(reference("demo/web:1"), new MemorySource().add("demo/web:1", twoLayers), NEVER);
    const silent = {
      resolve: () => Promise.reject(new SwarmError("unavailable", "GET https://registry: ECONNREFUSED")),
    };
    expect(await store.present(reference("demo/web:1"))).toMatchObject({ passwd: PASSWD });
    expect(await store.present(reference("demo/web:2"))).toBeUndefined();
    await expect(store.ensureImage(reference("demo/web:1"), silent, NEVER)).rejects.toThrow(
      "image demo/web:1: GET https://registry: ECONNREFUSED",
    );
    await expect(store.ensureImage(reference("nope"), new MemorySource(), NEVER)).rejects.toThrow(
      "No such image: nope:latest",
    );
  });

  rootTest("is shared, goes on when one gives up, and stops clean when all have", async () => {
    await using at = new TestDirectory();
    const store = await at.open();
    const source = new MemorySource().add("demo/web:1", twoLayers);
    const gate = Promise.withResolvers<void>();
    source.beforePiece = (signal) => {
      const aborted = Promise.withResolvers<void>();
      signal.addEventListener("abort", () => aborted.resolve());
      return Promise.race([gate.promise, aborted.promise]);
    };
    const givesUp = [new AbortController(), new AbortController()];
    const pulls = givesUp.map(({ signal }) => store.ensureImage(reference("demo/web:1"), source, signal));
    await eventually(() => expect(source.streamed).toHaveLength(2));
    givesUp[0]?.abort();
    await expect(pulls[0]).rejects.toThrow();
    expect(readdirSync(join(at.images, "ingest"))).toHaveLength(2);
    givesUp[1]?.abort();
    await expect(pulls[1]).rejects.toThrow();
    expect(readdirSync(join(at.images, "ingest"))).toEqual([]);
    gate.resolve();
    expect((await store.ensureImage(reference("demo/web:1"), source, NEVER)).layerDirs).toHaveLength(2);
  });
});

describe("layers", () => {
  rootTest("that hide all below, or come twice, leave a stack that overlayfs takes", async () => {
    await using at = new TestDirectory();
    const store = await at.open();
    const base = { files: [file("base", "1"), directory("etc"), file("etc/passwd", PASSWD)] };
    const twice = buildParts({ name: "twice:1", layers: [base, { files: [file("mid", "")] }, base] });
    const opaque = buildParts({
      name: "opaque:1",
      layers: [base, { files: [file(".wh..wh..opq", ""), file("top", "")] }],
    });
    const none = buildParts({ name: "none:1", layers: [] });
    const source = new MemorySource().add("twice:1", twice).add("opaque:1", opaque).add("none:1", none);
    expect((await store.ensureImage(reference("twice:1"), source, NEVER)).layerDirs).toHaveLength(2);
    const hidden = await store.ensureImage(reference("opaque:1"), source, NEVER);
    expect(hidden.layerDirs.map((path) => readdirSync(path))).toEqual([["top"]]);
    expect(hidden.passwd).toBeUndefined();
    const empty = await store.ensureImage(reference("none:1"), source, NEVER);
    expect(empty.layerDirs.map((path) => readdirSync(path))).toEqual([[]]);
  });
});

describe("the store", () => {
  rootTest("comes back with what it had, and forgets what is damaged", async () => {
    await using at = new TestDirectory();
    const source = new MemorySource().add("demo/web:1", twoLayers);
    await (await at.open()).ensureImage(reference("demo/web:1"), source, NEVER);
    expect(await (await at.open()).present(reference("demo/web:1"))).toMatchObject({ passwd: PASSWD });
    const records = join(at.images, "images");
    for (const name of readdirSync(records)) writeFileSync(join(records, name), "{");
    const store = await at.open();
    expect(store.list()).toEqual([]);
    expect(await store.present(reference("demo/web:1"))).toBeUndefined();
    await store.ensureImage(reference("demo/web:1"), source, NEVER);
    expect(source.streamed).toHaveLength(2);
  });

  rootTest("collects what nobody has used for long, also over a restart", async () => {
    await using at = new TestDirectory();
    const clock = new FakeClock();
    let store = await at.open({ clock });
    const other = buildParts({ name: "demo/other:1", layers: [{ files: [file("other", "")] }] });
    const source = new MemorySource().add("demo/web:1", twoLayers).add("demo/other:1", other);
    const web = await store.ensureImage(reference("demo/web:1"), source, NEVER);
    await store.ensureImage(reference("demo/other:1"), source, NEVER);
    expect(await store.remove(reference("demo/web:1"))).toBe(true);
    expect(await store.remove(reference("demo/web:1"))).toBe(false);
    const hour = 3_600_000;
    await store.collect(new Set(), hour);
    expect(readdirSync(join(at.images, "layers"))).toHaveLength(3);
    clock.jump(0.9 * hour);
    await store.collect(new Set([web.manifestDigest]), hour);
    store = await at.open({ clock });
    clock.jump(0.9 * hour);
    await store.ensureImage(reference("demo/other:1"), source, NEVER);
    await store.collect(new Set(), hour);
    expect(readdirSync(join(at.images, "layers"))).toHaveLength(3);
    clock.jump(0.2 * hour);
    await store.collect(new Set(), hour);
    expect(store.list()).toMatchObject([{ references: ["docker.io/demo/other:1"] }]);
    expect(readdirSync(join(at.images, "layers"))).toHaveLength(1);
    expect(readdirSync(join(at.images, "blobs/sha256"))).toHaveLength(2);
    expect(readdirSync(join(at.images, "ingest"))).toEqual([]);
  });

  rootTest("never marks half a layer done, killed at any moment", { timeout: 120_000 }, async () => {
    await using at = new TestDirectory();
    const script = new URL("./test-pull-forever.ts", import.meta.url).pathname;
    for (let round = 0; round < 12; round++) {
      const child = spawn(process.execPath, [script, at.images, at.options().shimPath], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      const exited = once(child, "exit");
      await once(child.stdout, "data");
      // From the first bytes of a layer to some layers later.
      const deadlineMs = performance.now() + round * 23;
      await eventually(() => expect(performance.now()).toBeGreaterThan(deadlineMs), { intervalMs: 1 });
      child.kill("SIGKILL");
      await exited;
      for (const hex of readdirSync(join(at.images, "layers"))) {
        const layer = join(at.images, "layers", hex);
        expect(JSON.parse(readFileSync(join(layer, "facts.json"), "utf8")).entries).toBe(201);
        expect(readdirSync(join(layer, "fs/files"))).toHaveLength(200);
      }
      await at.open();
      expect(readdirSync(join(at.images, "ingest"))).toEqual([]);
    }
  });
});
