/**
 * Managers of two versions, the older and the newer, share a store while they are upgraded one by one. What a newer one adds to
 * an object is kept by an older one that changes it (protobuf's unknown fields), and keys of kinds that it does not know are passed
 * over. What older ones would undo or misread needs a new format, which the newer version writes once all managers know it.
 */
import { SwarmError } from "../../common/base/error.ts";

/** The newest that this version knows. */
export const STORE_FORMAT = 1;

/** Throws `failed_precondition` for a store that is for newer versions only. */
export function checkFormat(format: number): void {
  if (format <= STORE_FORMAT) return;
  throw new SwarmError(
    "failed_precondition",
    `the cluster's store is of format ${format}, and this version knows formats up to ${STORE_FORMAT}: upgrade this manager`,
  );
}
