/** Images that were loaded into the cluster, found by what services write. */
import { canonicalName, type ImageReference } from "../../common/model/image-reference.ts";
import type { Image } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { View } from "./view.ts";

/** What the reference names among them: a digest decides, whatever name stands before it. */
export function loadedImage(view: Pick<View, "images" | "imageByName">, reference: ImageReference): Image | undefined {
  const { digest } = reference;
  if (digest === undefined) return view.imageByName(canonicalName(reference));
  return view.images.get(digest.slice(digest.indexOf(":") + 1));
}
