/** A daemon's data directory: its owner's only, held by one process at a time, and the home of the daemon's id. */
import { renameSync, writeFileSync } from "node:fs";
import { chmod, mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { lockDirectory } from "./directory-lock.ts";
import { errnoOf, SwarmError } from "./error.ts";
import { type Branded, isId, newId } from "./id.ts";
import type { Random } from "./random.ts";

/** A data directory that is ours until disposal. */
export interface DataDirectory<Id extends Branded<string>> extends Disposable {
  readonly path: string;
  readonly id: Id;
  /** Takes another id for good: one that somebody else gave. */
  adopt(id: Id): void;
}

/**
 * Makes the directory if need be (0700) and takes its lock. The id, in `path`/`idFile`, is made at the first opening; two
 * daemons of one id would each take what is the other's for their own. Throws `failed_precondition` while another process
 * holds the directory.
 */
export async function openDataDirectory<Id extends Branded<string>>(
  path: string,
  idFile: string,
  random: Random,
): Promise<DataDirectory<Id>> {
  let lock: Disposable | undefined;
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
    await chmod(path, 0o700);
    lock = lockDirectory(path);
    const id = await readId<Id>(`${path}/${idFile}`, random);
    const held = lock;
    const adopt = (other: Id) => {
      writeFileSync(`${path}/${idFile}.new`, `${other}\n`, { mode: 0o600 });
      renameSync(`${path}/${idFile}.new`, `${path}/${idFile}`);
    };
    return { path, id, adopt, [Symbol.dispose]: () => held[Symbol.dispose]() };
  } catch (reason) {
    lock?.[Symbol.dispose]();
    if (reason instanceof SwarmError) throw reason;
    throw SwarmError.wrap(`open data directory ${path}`, reason, "failed_precondition");
  }
}

async function readId<Id extends Branded<string>>(path: string, random: Random): Promise<Id> {
  try {
    const text = (await readFile(path, "utf8")).trim();
    if (isId(text)) return text as Id;
    throw new SwarmError("failed_precondition", `${path} holds no id: remove it to start as a new one`);
  } catch (reason) {
    if (errnoOf(reason) !== "ENOENT") throw reason;
    const id = newId<Id>(random);
    await writeFile(`${path}.new`, `${id}\n`, { mode: 0o600 });
    await rename(`${path}.new`, path);
    return id;
  }
}
