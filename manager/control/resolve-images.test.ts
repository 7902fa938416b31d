/** Goal: tags become digests where they can, and say why where they cannot. Method: a view with loaded images, played registries. */
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { SwarmError } from "../../common/base/error.ts";
import { FakeClock } from "../../common/base/fake-clock.ts";
import { canonicalName, type ImageReference } from "../../common/model/image-reference.ts";
import { ResolveImagesRequestSchema } from "../../proto/gen/swarm/v1/control_pb.js";
import { ImageSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { ControlDependencies } from "./dependencies.ts";
import { resolveImages } from "./resolve-images.ts";

const DIGEST = `sha256:${"1".repeat(64)}`;
const LOADED = `sha256:${"2".repeat(64)}`;
const never = new AbortController().signal;

/** What `references` resolve to when registries answer by `digestOf`. */
async function resolve(
  references: readonly string[],
  digestOf: (reference: ImageReference, signal: AbortSignal) => Promise<string | undefined>,
  clock = new FakeClock(),
) {
  const loaded = create(ImageSchema, { manifestDigest: LOADED });
  const view = {
    imageByName: (name: string) => (name === "docker.io/demo/web:1" ? loaded : undefined),
  };
  const dependencies = {
    store: { view },
    clock,
    registry: { digestOf: (reference: ImageReference, _: unknown, signal: AbortSignal) => digestOf(reference, signal) },
  };
  const request = create(ResolveImagesRequestSchema, { images: references.map((reference) => ({ reference })) });
  return await resolveImages(dependencies as unknown as ControlDependencies, request, never);
}

test("a registry's answer, a loaded image, a digest, a bad name and an image that is not there", async () => {
  const asked: string[] = [];
  const references = ["nginx", "nginx", "demo/web:1", `a/b@${DIGEST}`, "UPPER", "ghost:1", "down.example/x:2"];
  const { images } = await resolve(references, async (reference) => {
    const name = canonicalName(reference);
    asked.push(name);
    if (reference.domain === "down.example")
      throw new SwarmError("unavailable", "GET https://down.example: ECONNREFUSED");
    return name.includes("nginx") ? DIGEST : undefined;
  });
  expect(images).toEqual([
    { pinned: `nginx:latest@${DIGEST}`, problem: "" },
    { pinned: `nginx:latest@${DIGEST}`, problem: "" },
    { pinned: `demo/web:1@${LOADED}`, problem: "" },
    { pinned: `a/b@${DIGEST}`, problem: "" },
    { pinned: "", problem: '"UPPER" is not a valid repository/tag' },
    { pinned: "", problem: "no such image" },
    { pinned: "", problem: "GET https://down.example: ECONNREFUSED" },
  ]);
  expect(asked).toEqual(["docker.io/library/nginx:latest", "docker.io/library/ghost:1", "down.example/x:2"]);
});

test("a silent registry is given up, and so are those that wait behind it", async () => {
  const clock = new FakeClock();
  const references = Array.from({ length: 40 }, (_, index) => `silent.example/image:${index}`);
  const hangs = (_: ImageReference, signal: AbortSignal) =>
    new Promise<never>((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  const outcome = resolve(references, hangs, clock);
  for (let second = 0; second < 10; second++) await clock.advance(1_000);
  const { images } = await outcome;
  expect(images).toHaveLength(40);
  for (const { pinned, problem } of images)
    expect([pinned, problem]).toEqual(["", expect.stringContaining("silent.example")]);
});

test("too many at once are refused", async () => {
  const references = Array.from({ length: 1001 }, () => "nginx");
  await expect(resolve(references, async () => DIGEST)).rejects.toThrow(/at most 1000/);
});
