import { type ClusterKeys, KEY_BYTES } from "../manager/sealing/cluster-key.ts";

/** A key that every manager of a test's cluster has: what it seals is not secret. */
export const TEST_KEYS: ClusterKeys = {
  place: "the test",
  read: () => new Uint8Array(KEY_BYTES),
  create: () => new Uint8Array(KEY_BYTES),
  write: () => {},
};
