/** The care that a unix socket's path needs before and after binding. */
import { chmod, lstat, mkdir, stat, unlink } from "node:fs/promises";
import { connect } from "node:net";
import { dirname } from "node:path";
import { errnoOf, SwarmError } from "../base/error.ts";

/** A path that may be bound now. */
export interface SocketClaim {
  /** Narrows the bound socket to its owner (0600), or to owner and group (0660) where its folder is open to the same two. */
  secure(): Promise<void>;
  /** Gives the process its umask back; called whether or not binding worked. */
  release(): void;
}

/** sun_path holds 108 bytes with its closing NUL (unix(7)); a longer path would be cut or refused obscurely. */
const PATH_BYTES_MAX = 107;

/**
 * Makes way for a socket at `path`: makes its folder (0700), removes a socket that no process answers, and sets a umask
 * under which the socket is never open to others, not even between bind and chmod. A folder of a daemon's own user that its
 * group may enter, as an installation's /run/swarm, opens the socket to that group; root's folders never do.
 *
 * Throws `already_exists` when a server answers there or something else than a socket lies there, and
 * `invalid_argument` when the path is too long.
 */
export async function claimUnixSocket(path: string): Promise<SocketClaim> {
  if (Buffer.byteLength(path) > PATH_BYTES_MAX) {
    throw new SwarmError("invalid_argument", `socket path ${path}: longer than ${PATH_BYTES_MAX} bytes`);
  }
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  await removeStale(path);
  const umask = process.umask(0o077);
  return {
    secure: async () => chmod(path, (await isGroups(dirname(path))) ? 0o660 : 0o600),
    release: () => {
      process.umask(umask);
    },
  };
}

/** Whether the folder is this process's and its group may look into it: whoever made it so lets the group in. */
async function isGroups(folder: string): Promise<boolean> {
  const { uid, gid, mode } = await stat(folder);
  const groupMaySearch = (mode & 0o010) !== 0;
  return groupMaySearch && uid === process.geteuid?.() && gid === process.getegid?.() && uid !== 0;
}

async function removeStale(path: string): Promise<void> {
  try {
    const found = await lstat(path);
    if (!found.isSocket()) throw new SwarmError("already_exists", `${path} exists and is not a socket`);
    if (await answers(path)) throw new SwarmError("already_exists", `another process serves ${path}`);
    await unlink(path);
  } catch (reason) {
    if (errnoOf(reason) !== "ENOENT") throw reason;
  }
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
