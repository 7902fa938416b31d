// Goal: images that real tools wrote come through real registries and files unharmed.
// Method: Debian's docker-registry on loopback, skopeo to push and to convert, our own client, store and archive reader.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { NEVER, reference, TestDirectory } from "../../agent/image/test-store.ts";
import { readImageArchive } from "../../cli/image-archive/read.ts";
import { systemClock } from "../../common/base/clock.ts";
import { systemRandom } from "../../common/base/random.ts";
import { RegistryClient } from "../../common/registry/client.ts";
import { eventually } from "../eventually.ts";
import { buildImage, buildParts, busyboxFiles, sha256 } from "../images.ts";
import { rootTest } from "../privileges.ts";
import { directory, file, writeTar } from "../tar.ts";

const scratch = mkdtempSync(join(tmpdir(), "swarm-registry-"));
const plan = {
  name: "demo/web:1",
  config: { Cmd: ["/bin/httpd", "-f"], ExposedPorts: { "80/tcp": {} } },
  layers: [
    { files: busyboxFiles() },
    { files: [directory("srv"), file("srv/index.html", "hello\n"), file("etc/.wh.group", "")] },
    { files: [file("big", Buffer.alloc(3_000_000, "0123456789"))], compression: "zstd" },
  ],
} as const;
let registry: ChildProcess;
let host = "";

beforeAll(async () => {
  const port = await freePort();
  host = `127.0.0.1:${port}`;
  const config = join(scratch, "registry.yml");
  const storage = `storage: {filesystem: {rootdirectory: ${scratch}/data}}`;
  writeFileSync(config, `version: 0.1\nlog: {level: error}\n${storage}\nhttp: {addr: "${host}"}\n`);
  registry = spawn("/usr/bin/docker-registry", ["serve", config], { stdio: "ignore" });
  await eventually(async () => expect((await fetch(`http://${host}/v2/`)).status).toBe(200));
});

afterAll(async () => {
  const exited = once(registry, "exit");
  registry.kill();
  await exited;
  rmSync(scratch, { recursive: true });
});

describe("a real registry", () => {
  rootTest("gives back what skopeo pushed to it", async () => {
    const archive = buildImage({ ...plan, directory: scratch });
    skopeo("--dest-tls-verify=false", `oci-archive:${archive}`, `docker://${host}/demo/web:1`);
    await using at = new TestDirectory();
    const store = await at.open();
    using client = new RegistryClient(systemClock, systemRandom, { insecureRegistries: [] });
    const image = await store.ensureImage(reference(`${host}/demo/web:1`), client.source(), NEVER);
    expect(image.config).toMatchObject({ command: ["/bin/httpd", "-f"], exposedPorts: ["80/tcp"] });
    expect(image.layerDirs).toHaveLength(3);
    expect(image.passwd).toContain("root:x:0:0:");
    expect(image.group).toBeUndefined();
    expect(readFileSync(join(image.layerDirs[1] ?? "", "srv/index.html"), "utf8")).toBe("hello\n");
    expect(statSync(join(image.layerDirs[2] ?? "", "big")).size).toBe(3_000_000);

    const merged = join(scratch, "merged");
    execFileSync("mkdir", [merged]);
    const lower = image.layerDirs.toReversed().join(":");
    execFileSync("mount", ["-t", "overlay", "-o", `ro,lowerdir=${lower}`, "overlay", merged]);
    try {
      expect(readdirSync(join(merged, "etc")).toSorted()).toEqual(["bin", "passwd"]);
      expect(String(execFileSync("chroot", [merged, "/bin/cat", "/srv/index.html"]))).toBe("hello\n");
    } finally {
      execFileSync("umount", [merged]);
    }
    const pinned = `${host}/demo/web@${image.manifestDigest}`;
    expect(
      (await store.ensureImage(reference(pinned), { resolve: async () => undefined }, NEVER)).layerDirs,
    ).toHaveLength(3);
  });

  rootTest("says what it lacks", async () => {
    await using at = new TestDirectory();
    const store = await at.open();
    using client = new RegistryClient(systemClock, systemRandom, { insecureRegistries: [] });
    const pull = store.ensureImage(reference(`${host}/demo/nope:1`), client.source(), NEVER);
    await expect(pull).rejects.toThrow(`No such image: ${host}/demo/nope:1`);
  });
});

describe("archives", () => {
  const ours = buildParts(plan);
  test.each(["oci", "docker"] as const)("of our own in %s format are read", async (format) => {
    const path = buildImage({ ...plan, name: `demo/${format}:1`, format, directory: scratch });
    await using archive = await readImageArchive(path, NEVER);
    const [image] = archive.images;
    expect(image).toMatchObject({ names: [`docker.io/demo/${format}:1`], platform: { os: "linux" } });
    if (format === "oci") expect(image?.manifest.digest).toBe(ours.manifest.digest);
    for (const blob of [image?.config, ...(image?.layers ?? [])]) {
      const bytes = Buffer.concat(blob ? await Array.fromAsync(blob.open()) : []);
      expect([sha256(bytes), bytes.length]).toEqual([blob?.digest, blob?.sizeBytes]);
    }
  });

  test("that skopeo wrote as docker save does are read", async () => {
    // Docker's own format knows no zstd.
    const layers = plan.layers.map(({ files }) => ({ files }));
    const origin = buildImage({ ...plan, layers, name: "demo/skopeo:1", directory: scratch });
    const path = join(scratch, "docker.tar");
    skopeo(`oci-archive:${origin}`, `docker-archive:${path}:demo/skopeo:2`);
    await using archive = await readImageArchive(path, NEVER);
    expect(archive.images).toMatchObject([{ names: ["docker.io/demo/skopeo:2"] }]);
    expect(archive.images[0]?.layers).toHaveLength(3);
  });

  const layout = file("oci-layout", '{"imageLayoutVersion":"1.0.0"}');
  test.each<[string, Buffer, string]>([
    ["no tar", Buffer.alloc(2000, "x"), "not a tar archive, or damaged"],
    ["a compressed file", Buffer.from([0x1f, 0x8b, 8, 0]), "is compressed: unpack it with gunzip first"],
    ["an empty file", Buffer.alloc(0), "not an image archive"],
    ["another tar", writeTar([file("a", "b")]), "not an image archive: neither manifest.json nor index.json"],
    [
      "a cut one",
      readFileSync(buildImage({ ...plan, directory: scratch })).subarray(0, 100_000),
      "archive is cut short",
    ],
    ["an empty layout", writeTar([layout, file("index.json", '{"schemaVersion":2,"manifests":[]}')]), "holds no image"],
    ["a bad manifest", writeTar([file("manifest.json", "{")]), "manifest.json is not JSON"],
    ["a missing layer", withoutLayer(), "is missing"],
    ["a changed layer", changedLayer(), "digest mismatch"],
  ])("%s is refused with the reason", async (name, bytes, message) => {
    const path = join(scratch, `${name.replaceAll(" ", "-")}.tar`);
    writeFileSync(path, bytes);
    await expect(readImageArchive(path, NEVER)).rejects.toThrow(message);
    await expect(readImageArchive(path, NEVER)).rejects.toThrow(path);
  });

  test("a missing file and a directory are named", async () => {
    await expect(readImageArchive(join(scratch, "nope"), NEVER)).rejects.toThrow("nope: no such file");
    await expect(readImageArchive(scratch, NEVER)).rejects.toThrow("is a directory");
  });

  function withoutLayer(): Buffer {
    const manifest = [{ Config: "c.json", RepoTags: ["a:1"], Layers: ["l/layer.tar"] }];
    return writeTar([file("c.json", ours.config.bytes), file("manifest.json", JSON.stringify(manifest))]);
  }

  function changedLayer(): Buffer {
    const layers = ["1", "2", "3"].map((name) => file(name, writeTar([file(name, "other")])));
    const manifest = [{ Config: "c.json", RepoTags: ["a:1"], Layers: ["1", "2", "3"] }];
    return writeTar([...layers, file("c.json", ours.config.bytes), file("manifest.json", JSON.stringify(manifest))]);
  }
});

function skopeo(...args: readonly string[]): void {
  execFileSync("skopeo", ["--insecure-policy", "copy", "-q", ...args], { stdio: ["ignore", "ignore", "inherit"] });
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}
