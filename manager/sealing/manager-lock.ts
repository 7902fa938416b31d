/**
 * What lets this manager into the cluster's secrets, on its disk: the cluster key and its own private key. With autolock both lie
 * sealed under an unlock key that is on no manager's disk, and a manager that starts again waits until it is given that.
 *
 *   cluster.key, identity/       on the disk, plain or sealed
 *   RUNTIME/                     the identity in clear, while the manager runs: etcd reads it there. On a tmpfs it is on no disk
 */
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf, SwarmError } from "../../common/base/error.ts";
import type { Entropy } from "../../common/base/random.ts";
import { type Credentials, readCredentials, writeCredentials } from "../../common/pki/credential-files.ts";
import { seal, type Unlocking, unseal } from "../../common/pki/sealed-key.ts";
import { type ClusterKeys, KEY_BYTES } from "./cluster-key.ts";
import { keyFile } from "./key-file.ts";

const SEALED = "SWARM-CLUSTER-KEY-SEALED-1-";
const PURPOSE = "cluster key";
/** The place of the unlock key in the store, to seal it under the cluster key. */
export const UNLOCK_KEY_PLACE = "cluster/unlock-key";

/** Where everything lies. */
export interface ManagerLockOptions {
  readonly clusterKeyFile: string;
  /** The identity that is kept. */
  readonly identity: string;
  /** The identity while it is used. */
  readonly runtime: string;
  readonly entropy: Entropy;
}

export class ManagerLock {
  readonly #options: ManagerLockOptions;
  #unlocking: Unlocking | undefined;
  #clusterKey: Uint8Array | undefined;

  constructor(options: ManagerLockOptions) {
    this.#options = options;
  }

  /** For the manager that runs: the key in clear, however it lies. */
  get clusterKeys(): ClusterKeys {
    const file = keyFile(this.#options.clusterKeyFile, this.#options.entropy);
    return {
      place: file.place,
      read: () => this.#clusterKey ?? (this.#sealed() === undefined ? file.read() : undefined),
      create: () => {
        const key = this.#options.entropy(KEY_BYTES);
        file.write(key);
        return key;
      },
      write: (key) => file.write(key),
    };
  }

  /** Whether an unlock key is needed, and was not given yet. */
  get isLocked(): boolean {
    return this.#clusterKey === undefined && this.#sealed() !== undefined;
  }

  /** Opens what lies sealed. Throws `permission_denied` for another key. */
  async unlock(key: Uint8Array): Promise<void> {
    const sealed = this.#sealed();
    if (sealed === undefined) throw new SwarmError("failed_precondition", "this host's manager is not locked");
    const unlocking: Unlocking = { type: "unlock-key", key };
    try {
      this.#clusterKey = await unseal(sealed, unlocking, { purpose: PURPOSE });
    } catch (reason) {
      if (!(reason instanceof SwarmError) || reason.code !== "permission_denied") throw reason;
      throw new SwarmError("permission_denied", "invalid key: this manager was locked under another one");
    }
    this.#unlocking = unlocking;
  }

  /** Puts the identity where it is used. Without one there is nothing to put. */
  async open(): Promise<void> {
    const stored = await readCredentials(this.#options.identity, this.#unlocking);
    if (stored.state === "ready") await writeCredentials(this.#options.runtime, stored.credentials);
  }

  /** Keeps an identity, as the cluster key is kept. */
  async keep(credentials: Credentials): Promise<void> {
    const { identity, entropy } = this.#options;
    const sealing = this.#unlocking && { unlocking: this.#unlocking, entropy };
    await writeCredentials(identity, credentials, sealing);
  }

  /** Locks under a key, under another one than before, or not any more. */
  async relock(key: Uint8Array | undefined, credentials: Credentials): Promise<void> {
    const clusterKey = this.clusterKeys.read();
    if (clusterKey === undefined) throw new SwarmError("failed_precondition", "the cluster key is gone");
    const before = this.#unlocking?.type === "unlock-key" ? this.#unlocking.key : undefined;
    if (key === undefined ? before === undefined : before !== undefined && Buffer.from(before).equals(key)) return;
    this.#unlocking = key && { type: "unlock-key", key };
    await this.keep(credentials);
    const { clusterKeyFile, entropy } = this.#options;
    if (this.#unlocking === undefined) keyFile(clusterKeyFile, entropy).write(clusterKey);
    else writeSealed(clusterKeyFile, await seal(clusterKey, this.#unlocking, { purpose: PURPOSE, entropy }));
    this.#clusterKey = clusterKey;
  }

  /** Nothing in clear stays but what is kept so. */
  async close(): Promise<void> {
    await rm(this.#options.runtime, { recursive: true, force: true });
  }

  #sealed(): Uint8Array | undefined {
    try {
      const text = readFileSync(this.#options.clusterKeyFile, "utf8").trim();
      return text.startsWith(SEALED) ? Buffer.from(text.slice(SEALED.length), "base64") : undefined;
    } catch (reason) {
      if (errnoOf(reason) === "ENOENT") return undefined;
      throw SwarmError.wrap(`read the cluster key ${this.#options.clusterKeyFile}`, reason, "failed_precondition");
    }
  }
}

/** Where the identity lies in clear while a manager runs: beside its socket, which is on a tmpfs by default. */
export function runtimeDirectory(socketDirectory: string, nodeId: string): string {
  return join(socketDirectory, `identity-${nodeId.slice(0, 12)}`);
}

function writeSealed(path: string, sealed: Uint8Array): void {
  writeFileSync(`${path}.new`, `${SEALED}${Buffer.from(sealed).toString("base64")}\n`, { mode: 0o600, flush: true });
  renameSync(`${path}.new`, path);
}
