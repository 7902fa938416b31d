import { readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { errnoOf, SwarmError } from "../../common/base/error.ts";
import type { Entropy } from "../../common/base/random.ts";
import { type ClusterKeys, formatKey, KEY_BYTES, parseKey } from "./cluster-key.ts";

/** The key in a file of this manager's, 0600. */
export function keyFile(path: string, entropy: Entropy): ClusterKeys {
  return {
    place: path,
    read() {
      try {
        const { mode } = statSync(path);
        if ((mode & 0o077) !== 0) {
          const shown = (mode & 0o777).toString(8).padStart(4, "0");
          throw new SwarmError(
            "failed_precondition",
            `${path} has mode ${shown}: it must be its owner's only (chmod 600)`,
          );
        }
        return parseKey(readFileSync(path, "utf8"), path);
      } catch (reason) {
        if (errnoOf(reason) === "ENOENT") return undefined;
        throw SwarmError.wrap(`read the cluster key ${path}`, reason, "failed_precondition");
      }
    },
    create() {
      const key = entropy(KEY_BYTES);
      this.write(key);
      return key;
    },
    write(key) {
      writeFileSync(`${path}.new`, formatKey(key), { mode: 0o600, flush: true });
      renameSync(`${path}.new`, path);
    },
  };
}
