import { timingSafeEqual } from "node:crypto";

/** Whether two secrets, or marks of secrets, are equal, in time that does not depend on where they differ. */
export function sameBytes(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && timingSafeEqual(left, right);
}
