import { createHash } from "node:crypto";
import { chmod, mkdtemp, readdir, rm, stat, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { SwarmError } from "../../common/base/error.ts";
import { FakeClock } from "../../common/base/fake-clock.ts";
import { eventually } from "../../test/eventually.ts";
import { BlobStore } from "./blob-store.ts";

const { signal } = new AbortController();

async function world() {
  const directory = await mkdtemp(join(tmpdir(), "blobs-"));
  const clock = new FakeClock();
  const open = () => BlobStore.open({ directory: join(directory, "content"), clock });
  return {
    directory: join(directory, "content"),
    clock,
    open,
    store: await open(),
    /** Everything that lies on the disk below the store. */
    files: async () => {
      const entries = await readdir(join(directory, "content"), { recursive: true, withFileTypes: true });
      return entries.filter((entry) => entry.isFile()).map((entry) => entry.name);
    },
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }),
  };
}

function digestOf(bytes: Uint8Array, algorithm = "sha256"): string {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}`;
}

function headerOf(bytes: Uint8Array) {
  return { digest: digestOf(bytes), sizeBytes: bytes.length };
}

async function* inParts(bytes: Uint8Array, partBytes = 1000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += partBytes) yield bytes.subarray(at, at + partBytes);
}

async function collect(parts: AsyncIterable<Uint8Array>): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(parts));
}

const BLOB = Buffer.from(Array.from({ length: 700_001 }, (_, index) => (index * 31) % 251));

describe("the blob store", () => {
  test("gives back what was put, from any offset, also after it was opened again", async () => {
    await using it = await world();
    const { digest } = headerOf(BLOB);
    const long = { digest: digestOf(BLOB, "sha512"), sizeBytes: BLOB.length };
    expect(await it.store.missing([digest, long.digest])).toEqual([digest, long.digest]);
    await it.store.put(headerOf(BLOB), inParts(BLOB), signal);
    await it.store.put(long, inParts(BLOB), signal);
    for (const store of [it.store, await it.open()]) {
      expect(await store.missing([digest, long.digest])).toEqual([]);
      expect(store.sizes().get(digest)).toBe(BLOB.length);
      expect((await collect(store.open(digest, 0, signal))).equals(BLOB)).toBe(true);
      const tail = await collect(store.open(digest, 300_000, signal));
      expect(tail.equals(BLOB.subarray(300_000))).toBe(true);
      expect(await collect(store.open(digest, BLOB.length, signal))).toHaveLength(0);
      await expect(collect(store.open(digest, BLOB.length + 1, signal))).rejects.toMatchObject({
        code: "out_of_range",
      });
    }
    expect((await stat(it.directory)).mode & 0o777).toBe(0o700);
  });

  test("keeps nothing of a blob that is not what it was said to be", async () => {
    await using it = await world();
    const { digest } = headerOf(BLOB);
    const bad: readonly [string, number, Uint8Array, RegExp][] = [
      [digest, BLOB.length, BLOB.subarray(1), /700000 of 700001 bytes came/],
      [digest, 10, BLOB, /more than the 10 bytes/],
      [digest, BLOB.length, Buffer.alloc(BLOB.length), /its content is sha256:/],
      [digest, -1, BLOB, /not a size/],
      [digest, Number.NaN, BLOB, /not a size/],
      [digest, 1.5, BLOB, /not a size/],
      [digest, 2 ** 53, BLOB, /not a size/],
      ["sha256:../../../../etc/passwd", 3, BLOB, /not a digest/],
      [`sha256:${"a".repeat(63)}/`, 3, BLOB, /not a digest/],
      [`sha256:${"A".repeat(64)}`, 3, BLOB, /not a digest/],
      [`md5:${"a".repeat(32)}`, 3, BLOB, /not a digest/],
      ["", 3, BLOB, /not a digest/],
    ];
    for (const [name, sizeBytes, bytes, message] of bad) {
      const put = it.store.put({ digest: name, sizeBytes }, inParts(bytes), signal);
      await expect(put).rejects.toMatchObject({ code: "invalid_argument", message: expect.stringMatching(message) });
    }
    expect(await it.files()).toEqual([]);
    expect(await it.store.missing([digest])).toEqual([digest]);
  });

  test("stops reading at the first excess byte of an endless body", async () => {
    await using it = await world();
    let parts = 0;
    const endless = async function* () {
      for (;;) {
        parts += 1;
        yield Buffer.alloc(1000);
      }
    };
    const put = it.store.put({ digest: digestOf(BLOB), sizeBytes: 4500 }, endless(), signal);
    await expect(put).rejects.toMatchObject({ code: "invalid_argument" });
    expect(parts).toBe(5);
  });

  test("leaves nothing of a put that was aborted, also while its source was silent", async () => {
    await using it = await world();
    const aborter = new AbortController();
    const silent = async function* () {
      yield BLOB.subarray(0, 1000);
      await new Promise(() => {});
    };
    const put = it.store.put(headerOf(BLOB), silent(), aborter.signal);
    await eventually(async () => expect(await it.files()).toHaveLength(1));
    aborter.abort(new SwarmError("canceled", "caller left"));
    await expect(put).rejects.toMatchObject({ code: "canceled" });
    expect(await it.files()).toEqual([]);
    const broken = async function* () {
      yield BLOB.subarray(0, 1000);
      throw new SwarmError("unavailable", "connection broke");
    };
    await expect(it.store.put(headerOf(BLOB), broken(), signal)).rejects.toMatchObject({ code: "unavailable" });
    expect(await it.files()).toEqual([]);
  });

  test("clears what a crash left, and ignores what is no blob", async () => {
    await using it = await world();
    await it.store.put(headerOf(BLOB), inParts(BLOB), signal);
    await writeFile(join(it.directory, "ingest", "7"), "half a blob");
    await writeFile(join(it.directory, "blobs", "lost+found"), "");
    await chmod(it.directory, 0o755);
    const store = await it.open();
    expect([...store.sizes().keys()]).toEqual([digestOf(BLOB)]);
    expect(await readdir(join(it.directory, "ingest"))).toEqual([]);
    expect((await stat(it.directory)).mode & 0o777).toBe(0o700);
  });

  test("takes the same blob from several callers at once", async () => {
    await using it = await world();
    await Promise.all([700, 999, 5000].map((size) => it.store.put(headerOf(BLOB), inParts(BLOB, size), signal)));
    expect(await it.files()).toHaveLength(1);
    const again = it.store.put({ digest: digestOf(BLOB), sizeBytes: 5 }, inParts(BLOB), signal);
    await expect(again).rejects.toMatchObject({ code: "invalid_argument" });
  });

  test("lets readers finish what is deleted, and notices files that are gone", async () => {
    await using it = await world();
    const { digest } = headerOf(BLOB);
    await it.store.put(headerOf(BLOB), inParts(BLOB), signal);
    const reader = it.store.open(digest, 0, signal);
    const first = await reader.next();
    await it.store.delete(digest);
    await it.store.delete(digest);
    const rest = await collect(reader);
    expect((first.value?.length ?? 0) + rest.length).toBe(BLOB.length);
    await expect(collect(it.store.open(digest, 0, signal))).rejects.toMatchObject({ code: "not_found" });
    await it.store.put(headerOf(BLOB), inParts(BLOB), signal);
    await unlink(join(it.directory, "blobs", digest.replace(":", "-")));
    await expect(collect(it.store.open(digest, 0, signal))).rejects.toMatchObject({ code: "not_found" });
    expect(await it.store.missing([digest])).toEqual([digest]);
  });

  test("deletes what is unused, but not what somebody just asked about", async () => {
    await using it = await world();
    const blobs = ["one", "two", "three"].map((text) => Buffer.from(text));
    for (const bytes of blobs) await it.store.put(headerOf(bytes), inParts(bytes), signal);
    const [one, two, three] = blobs.map((bytes) => digestOf(bytes));
    it.clock.jump(1000);
    await it.store.missing([two ?? ""]);
    expect(await it.store.deleteUnused(new Set([one ?? ""]), 1000)).toEqual([three]);
    expect([...it.store.sizes().keys()]).toEqual([one, two]);
  });
});
