/**
 * Which digests references stand for now, so that all nodes run the same and a moved tag replaces nothing unasked. What
 * cannot be found out is said and is no error: each node then resolves the reference by itself, as with Docker.
 */
import { withTimeout } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import {
  canonicalName,
  familiarName,
  type ImageReference,
  parseImageReference,
  withDigest,
} from "../../common/model/image-reference.ts";
import { decodeRegistryAuth } from "../../common/registry/credentials.ts";
import type { ImageToResolve, ResolveImagesRequest } from "../../proto/gen/swarm/v1/control_pb.js";
import type { ControlDependencies } from "./dependencies.ts";

/** More than the services of the largest stack. */
const IMAGES_MAX = 1000;
/** Of registries at once: more would only make them refuse us. */
const PARALLEL_MAX = 16;
/** For all together: people wait for it, and a node may still reach the registry that this manager does not. */
const TIMEOUT_MS = 4_000;

/** What became of one reference: `pinned` is it with its digest, or empty with the `problem`. */
interface Resolved {
  readonly pinned: string;
  readonly problem: string;
}

/** @throws invalid_argument for too many references; a bad one among them is a problem of its own. */
export async function resolveImages(
  dependencies: ControlDependencies,
  request: ResolveImagesRequest,
  signal: AbortSignal,
): Promise<{ readonly images: readonly Resolved[] }> {
  const { images } = request;
  if (images.length > IMAGES_MAX) throw new SwarmError("invalid_argument", `images: at most ${IMAGES_MAX} at once`);
  const { clock } = dependencies;
  const deadlineMs = clock.monotonicMs() + TIMEOUT_MS;
  // One question for each reference and login, however many services use it.
  const questions = new Map(images.map((image) => [keyOf(image), image]));
  const answers = new Map<string, Resolved>();
  const waiting = [...questions].reverse();
  const work = async () => {
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      const [key, image] = next;
      const timeoutMs = Math.max(1, deadlineMs - clock.monotonicMs());
      answers.set(key, await resolveOne(dependencies, image, timeoutMs, signal));
    }
  };
  await Promise.all(Array.from({ length: PARALLEL_MAX }, work));
  return { images: images.map((image) => answers.get(keyOf(image)) ?? nothing("not asked")) };
}

function keyOf({ reference, registryAuth }: ImageToResolve): string {
  return `${reference}\n${registryAuth}`;
}

function nothing(problem: string): Resolved {
  return { pinned: "", problem };
}

async function resolveOne(
  { store, registry, clock }: ControlDependencies,
  image: ImageToResolve,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<Resolved> {
  const parsed = parseImageReference(image.reference);
  if (!parsed.ok) return nothing(parsed.problem);
  const { reference } = parsed;
  if (reference.digest !== undefined) return pinnedTo(reference, reference.digest);
  const loaded = store.view.imageByName(canonicalName(reference));
  if (loaded !== undefined) return pinnedTo(reference, loaded.manifestDigest);
  try {
    const credentials = decodeRegistryAuth(image.registryAuth);
    const options = { clock, timeoutMs, operation: `ask ${reference.domain} for ${familiarName(reference)}` };
    const digest = await withTimeout(options, signal, (until) => registry.digestOf(reference, credentials, until));
    return digest === undefined ? nothing("no such image") : pinnedTo(reference, digest);
  } catch (reason) {
    if (signal.aborted) throw reason;
    return nothing(SwarmError.from(reason).message);
  }
}

function pinnedTo(reference: ImageReference, digest: string): Resolved {
  return { pinned: familiarName(withDigest(reference, digest)), problem: "" };
}
