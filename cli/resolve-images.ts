/**
 * Pins images to the digests that their tags stand for now, as Docker's client does (docker/cli service/create.go): so all
 * nodes run the same, and a tag that moves replaces nothing until somebody says so.
 */
import type { ServiceSpec } from "../proto/gen/swarm/v1/types_pb.js";
import type { ControlClient } from "./command.ts";
import type { Io } from "./io.ts";
import { registryAuthFor } from "./registry-auth.ts";
import { UsageError } from "./usage-error.ts";

/**
 * Puts digests into the images of `specs`. An image whose registry does not answer stays as it is; the warnings that say so
 * are answered, to be shown once the specs are accepted. Who is logged in at the registry asks as such.
 */
export async function pinImages(client: ControlClient, specs: readonly ServiceSpec[], io: Io): Promise<string[]> {
  const containers = specs.flatMap(({ task }) => task?.container ?? []).filter(({ image }) => image !== "");
  if (containers.length === 0) return [];
  const images = containers.map(({ image }) => ({ reference: image, registryAuth: loginFor(image, io) }));
  const answer = await client.resolveImages({ images });
  const warnings = new Set<string>();
  containers.forEach((container, index) => {
    const { pinned = "", problem = "" } = answer.images[index] ?? {};
    if (pinned !== "") container.image = pinned;
    else warnings.add(unresolved(container.image, problem));
  });
  return [...warnings];
}

/** Docker's words, and the reason, which Docker leaves out. */
function unresolved(image: string, problem: string): string {
  return (
    `image ${image} could not be accessed on a registry to record its digest (${problem}). ` +
    `Each node will access ${image} independently, possibly leading to different nodes running different versions of the image.\n`
  );
}

/** A login that cannot be read is a matter of `--with-registry-auth`, which asks for it. */
function loginFor(image: string, io: Io): string {
  try {
    return registryAuthFor(image, io) ?? "";
  } catch (reason) {
    if (reason instanceof UsageError) return "";
    throw reason;
  }
}
