/** The managers that this node heard of, kept for its next start: DATA-DIR/managers.json. */
import { readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf, SwarmError } from "../common/base/error.ts";
import { parseHostPort } from "../common/base/host-port.ts";

const pathIn = (directory: string) => join(directory, "managers.json");

/** None when there is no list, or a damaged one: those that were configured are left. */
export async function readManagers(directory: string): Promise<readonly string[]> {
  try {
    const list: unknown = JSON.parse(await readFile(pathIn(directory), "utf8"));
    return Array.isArray(list)
      ? list.filter((each) => typeof each === "string" && parseHostPort(each) !== undefined)
      : [];
  } catch (reason) {
    if (errnoOf(reason) === "ENOENT" || reason instanceof SyntaxError) return [];
    throw SwarmError.wrap(`read ${pathIn(directory)}`, reason, "failed_precondition");
  }
}

export async function writeManagers(directory: string, addresses: readonly string[]): Promise<void> {
  await writeFile(`${pathIn(directory)}.new`, JSON.stringify(addresses), { mode: 0o600 });
  await rename(`${pathIn(directory)}.new`, pathIn(directory));
}
