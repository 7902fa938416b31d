// Goal: good documents of both makers are read; anything else is refused with the reason, by name of the field.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SwarmError } from "../base/error.ts";
import { choosePlatform, decodeImageConfig, decodeImageDocument, MEDIA_TYPE, platformText } from "./oci-image.ts";

const digest = `sha256:${"ab".repeat(32)}`;
const descriptor = { mediaType: MEDIA_TYPE.ociLayerGzip, digest, size: 3 };
const manifest = { schemaVersion: 2, config: { ...descriptor, mediaType: MEDIA_TYPE.ociConfig }, layers: [descriptor] };
const config = { os: "linux", architecture: "amd64", rootfs: { type: "layers", diff_ids: [digest] } };
const json = (document: unknown) => Buffer.from(JSON.stringify(document));

describe("documents", () => {
  test("a manifest", () => {
    const read = decodeImageDocument(json(manifest), MEDIA_TYPE.dockerManifest);
    expect(read).toMatchObject({ kind: "manifest", manifest: { layers: [{ digest, sizeBytes: 3 }] } });
  });

  test("an index, of which the platform's own entry is chosen, the variant's first", () => {
    const entry = (architecture: string, variant?: string) => ({
      ...descriptor,
      digest: `sha256:${architecture.length}${variant?.length ?? 0}${"a".repeat(62)}`,
      platform: { os: "linux", architecture, ...(variant ? { variant } : {}) },
    });
    const manifests = [entry("amd64"), entry("arm", "v6"), entry("arm", "v7x")];
    const read = decodeImageDocument(json({ schemaVersion: 2, manifests }), MEDIA_TYPE.ociIndex);
    if (read.kind !== "index") throw new Error("no index");
    const choose = (architecture: string, variant?: string) =>
      choosePlatform(read.manifests, { os: "linux", architecture, ...(variant ? { variant } : {}) })?.platform;
    expect(choose("arm", "v7x")).toEqual({ os: "linux", architecture: "arm", variant: "v7x" });
    expect(choose("arm")).toMatchObject({ variant: "v6" });
    expect(choose("s390x")).toBeUndefined();
    expect(platformText({ os: "linux", architecture: "arm", variant: "v7" })).toBe("linux/arm/v7");
  });

  test.each<[string, unknown, string]>([
    ["a list", [], "manifest is not an object"],
    ["layers and manifests", { ...manifest, manifests: [] }, "both layers and manifests"],
    ["another version", { ...manifest, schemaVersion: 1 }, "only schemaVersion 2"],
    ["another name for itself", { ...manifest, mediaType: MEDIA_TYPE.ociIndex }, "but came as"],
    ["no config", { ...manifest, config: undefined }, "config is not an object"],
    ["a negative size", { ...manifest, layers: [{ ...descriptor, size: -1 }] }, "layers.size is not a size"],
    [
      "a short digest",
      { ...manifest, layers: [{ ...descriptor, digest: "sha256:ab" }] },
      "layers.digest is not a digest",
    ],
    [
      "an upper-case digest",
      { ...manifest, layers: [{ ...descriptor, digest: digest.toUpperCase() }] },
      "is not a digest",
    ],
    ["too many layers", { ...manifest, layers: Array(129).fill(descriptor) }, "image of 129 layers is over 128"],
  ])("%s is refused", (_name, document, message) => {
    expect(() => decodeImageDocument(json(document), MEDIA_TYPE.ociManifest)).toThrow(message);
  });
});

describe("configs", () => {
  test("give what a container needs, and nothing that is not ours to take", () => {
    const full = {
      ...config,
      config: {
        User: "nobody",
        Env: ["A=b"],
        Cmd: ["x"],
        Entrypoint: null,
        WorkingDir: "/srv",
        StopSignal: "SIGQUIT",
        ExposedPorts: { "80/tcp": {} },
        Volumes: { "/data": {} },
        Labels: { "swarm.node": "all" },
        Healthcheck: { Test: ["CMD", "true"], Interval: 5_000_000_000, Retries: 0 },
      },
    };
    expect(decodeImageConfig(json(full))).toEqual({
      platform: { os: "linux", architecture: "amd64" },
      user: "nobody",
      env: ["A=b"],
      command: ["x"],
      entrypoint: [],
      workingDirectory: "/srv",
      stopSignal: "SIGQUIT",
      exposedPorts: ["80/tcp"],
      volumes: ["/data"],
      healthcheck: { test: ["CMD", "true"], intervalMs: 5000 },
      diffIds: [digest],
    });
  });

  test.each<[string, unknown, string]>([
    ["no rootfs", { ...config, rootfs: undefined }, "rootfs is not an object"],
    ["a NUL in the environment", { ...config, config: { Env: ["A=\0"] } }, "config.Env holds a NUL byte"],
    ["a command that is text", { ...config, config: { Cmd: "x" } }, "config.Cmd is not a list"],
    ["a diff id that is a path", { ...config, rootfs: { diff_ids: ["../.."] } }, "rootfs.diff_ids is not a digest"],
  ])("%s is refused", (_name, document, message) => {
    expect(() => decodeImageConfig(json(document))).toThrow(message);
  });
});

test("whatever JSON comes, only invalid_argument comes out", () => {
  fc.assert(
    fc.property(fc.json(), fc.constantFrom(...Object.values(MEDIA_TYPE)), (text, mediaType) => {
      for (const decode of [decodeImageConfig, (bytes: Uint8Array) => decodeImageDocument(bytes, mediaType)]) {
        try {
          decode(Buffer.from(text));
        } catch (reason) {
          if (!(reason instanceof SwarmError) || reason.code !== "invalid_argument") throw reason;
        }
      }
    }),
  );
});
