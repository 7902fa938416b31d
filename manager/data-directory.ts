/** The manager's data directory: its owner's only, and the home of the manager's id. */
import { chmod, mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { lockDirectory } from "../common/base/directory-lock.ts";
import { errnoOf, SwarmError } from "../common/base/error.ts";
import { isId, type ManagerId, newId } from "../common/base/id.ts";
import type { Random } from "../common/base/random.ts";

/** A data directory that is ours until disposal. */
export interface DataDirectory extends Disposable {
  readonly managerId: ManagerId;
}

/**
 * Makes the directory if need be (0700) and takes its lock: two managers of one id would take each other's leadership
 * for their own. The id is made at the first opening. Throws `failed_precondition` while another manager holds it.
 */
export async function openDataDirectory(path: string, random: Random): Promise<DataDirectory> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
    await chmod(path, 0o700);
    const lock = lockDirectory(path);
    const managerId = await readManagerId(`${path}/manager-id`, random);
    return { managerId, [Symbol.dispose]: () => lock[Symbol.dispose]() };
  } catch (reason) {
    if (reason instanceof SwarmError) throw reason;
    throw SwarmError.wrap(`open data directory ${path}`, reason, "failed_precondition");
  }
}

async function readManagerId(path: string, random: Random): Promise<ManagerId> {
  try {
    const text = (await readFile(path, "utf8")).trim();
    if (isId(text)) return text as ManagerId;
    throw new SwarmError("failed_precondition", `${path} holds no id: remove it to start as a new manager`);
  } catch (reason) {
    if (errnoOf(reason) !== "ENOENT") throw reason;
    const id = newId<ManagerId>(random);
    await writeFile(`${path}.new`, `${id}\n`, { mode: 0o600 });
    await rename(`${path}.new`, path);
    return id;
  }
}
