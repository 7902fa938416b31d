import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { FakeClock } from "../../common/base/fake-clock.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { seededRandom } from "../../common/base/random.ts";
import { Scope } from "../../common/base/scope.ts";
import { MEDIA_TYPE } from "../../common/model/oci-image.ts";
import { MemoryNetwork } from "../../common/rpc/memory-transport.ts";
import { createClient } from "../../common/rpc/service.ts";
import { Content as ContentService } from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import { ImageSchema, ManagerInfoSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { testId } from "../../test/objects.ts";
import { MemoryKv } from "../store/memory-kv.ts";
import { openStore } from "../store/open-store.ts";
import { BlobStore } from "./blob-store.ts";
import { Content } from "./content.ts";

const { signal } = new AbortController();
const CONFIG = Buffer.from('{"os":"linux"}');
const LAYER = Buffer.alloc(1_000_000, "layer");
const NAME = "docker.io/demo/web:1";

function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

function descriptor(mediaType: string, bytes: Uint8Array, size = bytes.length) {
  return { mediaType, digest: digestOf(bytes), size };
}

function manifestOf(layerSize = LAYER.length): Buffer {
  const document = {
    schemaVersion: 2,
    mediaType: MEDIA_TYPE.ociManifest,
    config: descriptor(MEDIA_TYPE.ociConfig, CONFIG),
    layers: [descriptor(MEDIA_TYPE.ociLayer, LAYER, layerSize)],
  };
  return Buffer.from(JSON.stringify(document));
}

/** Two managers over one store; the first one holds an image. */
async function world(manifest = manifestOf()) {
  const directory = await mkdtemp(join(tmpdir(), "content-"));
  const clock = new FakeClock();
  const kv = new MemoryKv(clock);
  const scope = new Scope();
  const store = await openStore({ kv, clock, random: seededRandom(5), logger: silentLogger }, scope);
  const network = new MemoryNetwork({ clock });
  let connections = 0;
  const start = async (name: string) => {
    const managerId = testId();
    const address = `${name}:4242`;
    const object = create(ManagerInfoSchema, { id: managerId, address, hostname: name });
    await store.commit([{ type: "create", kind: "manager", object }], { signal });
    const blobs = await BlobStore.open({ directory: join(directory, name), clock });
    const content = new Content({
      view: store.view,
      blobs,
      clock,
      logger: silentLogger,
      managerId,
      connect: (to) => {
        connections += 1;
        return network.transport(name, to);
      },
    });
    const server = network.serve(address);
    server.addService(ContentService, content.implementation);
    scope.spawn("content", (until) => content.run(until));
    return {
      managerId,
      address,
      blobs,
      server,
      client: createClient(ContentService, network.transport("agent", address)),
    };
  };
  const holder = await start("holder");
  const other = await start("other");
  const image = create(ImageSchema, {
    id: digestOf(manifest).slice("sha256:".length),
    names: [NAME],
    manifestDigest: digestOf(manifest),
    platform: { os: "linux", architecture: "amd64" },
    blobDigests: [CONFIG, LAYER].map(digestOf),
    managerIds: [holder.managerId],
  });
  await store.commit([{ type: "create", kind: "image", object: image }], { signal });
  for (const bytes of [manifest, CONFIG, LAYER]) {
    const once = async function* () {
      yield bytes;
    };
    await holder.blobs.put({ digest: digestOf(bytes), sizeBytes: bytes.length }, once(), signal);
  }
  return {
    clock,
    store,
    holder,
    other,
    image,
    manifest,
    connections: () => connections,
    async [Symbol.asyncDispose]() {
      await scope[Symbol.asyncDispose]();
      kv[Symbol.dispose]();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

type Client = Awaited<ReturnType<typeof world>>["holder"]["client"];

async function get(client: Client, bytes: Uint8Array, offset = 0n, localOnly = false): Promise<Buffer> {
  const parts = await Array.fromAsync(client.getBlob({ digest: digestOf(bytes), offset, localOnly }));
  return Buffer.concat(parts.map(({ data }) => data));
}

describe("an image of the cluster", () => {
  test("is found by name and platform, or by digest, at any manager", async () => {
    await using it = await world();
    const platform = { os: "linux", architecture: "x86_64" };
    for (const { client } of [it.other, it.holder]) {
      for (const reference of [NAME, "demo/web:1", `demo/other@${it.image.manifestDigest}`]) {
        const answer = await client.resolveImage({ reference, platform });
        expect(Buffer.from(answer.manifest).equals(it.manifest)).toBe(true);
        expect(answer.manifestDigest).toBe(it.image.manifestDigest);
        expect(answer.holders[0]?.address, "who has it comes first").toBe("holder:4242");
      }
    }
    const absent = [
      { reference: "demo/web:2", platform },
      { reference: NAME, platform: { os: "linux", architecture: "arm64" } },
      { reference: `demo/web@sha256:${"0".repeat(64)}`, platform },
    ];
    for (const request of absent) {
      await expect(it.holder.client.resolveImage(request)).rejects.toMatchObject({ code: "not_found" });
    }
    const bad = it.holder.client.resolveImage({ reference: "Not A Reference" });
    await expect(bad).rejects.toMatchObject({ code: "invalid_argument" });
  });

  test("comes from another manager when this one lacks it, once, and stays", async () => {
    await using it = await world();
    const answers = await Promise.all([get(it.other.client, LAYER), get(it.other.client, LAYER, 999_990n)]);
    expect(answers[0].equals(LAYER)).toBe(true);
    expect(answers[1]).toHaveLength(10);
    expect(it.connections(), "one for the manifest, one for the layer").toBe(2);
    await it.holder.server[Symbol.asyncDispose]();
    expect((await get(it.other.client, LAYER)).equals(LAYER)).toBe(true);
    await expect(get(it.other.client, CONFIG)).rejects.toMatchObject({ code: "unavailable" });
  });

  test("is never asked for in a circle, nor is content that no image has", async () => {
    await using it = await world();
    const both = { ...it.image, managerIds: [it.holder.managerId, it.other.managerId] };
    await it.store.commit(
      [{ type: "update", kind: "image", object: both, version: it.store.view.version("image", both.id) }],
      {
        signal,
      },
    );
    await it.holder.blobs.delete(digestOf(LAYER));
    await expect(get(it.holder.client, LAYER)).rejects.toMatchObject({ code: "unavailable" });
    await expect(get(it.other.client, LAYER, 0n, true)).rejects.toMatchObject({ code: "not_found" });
    const before = it.connections();
    await expect(get(it.other.client, Buffer.from("stranger"))).rejects.toMatchObject({ code: "not_found" });
    const hostile = Array.fromAsync(it.other.client.getBlob({ digest: "sha256:../x" }));
    await expect(hostile).rejects.toMatchObject({ code: "invalid_argument" });
    expect(it.connections()).toBe(before);
  });

  test("is not copied when a blob is larger than its manifest says", async () => {
    await using it = await world(manifestOf(1000));
    const answer = get(it.other.client, LAYER);
    await expect(answer).rejects.toMatchObject({
      code: "unavailable",
      message: expect.stringMatching(/more than the 1000/),
    });
    expect(it.other.blobs.has(digestOf(LAYER))).toBe(false);
  });

  test("leaves no blobs behind when it is removed", async () => {
    await using it = await world();
    await it.clock.advance(3_700_000);
    expect(it.holder.blobs.sizes().size).toBe(3);
    await it.store.commit([{ type: "delete", kind: "image", id: it.image.id }], { signal });
    await it.clock.advance(600_000);
    await expect.poll(() => it.holder.blobs.sizes().size).toBe(0);
  });
});
