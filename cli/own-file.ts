/** A new file that holds a key: its owner's only, and in no other file's place. */
import { closeSync, openSync, rmSync, writeFileSync } from "node:fs";
import { SwarmError, systemMessage } from "../common/base/error.ts";

/**
 * Makes the file, asks for its text and writes it: what cannot be written is not asked for, and what is not answered leaves no
 * file. Throws `failed_precondition` with the path.
 */
export async function writeOwnFile(path: string, ask: () => Promise<string>): Promise<void> {
  const onDisk = <T>(work: () => T): T => {
    try {
      return work();
    } catch (reason) {
      throw new SwarmError("failed_precondition", `${path}: ${systemMessage(reason)}`, { cause: reason });
    }
  };
  const file = onDisk(() => openSync(path, "wx", 0o600));
  try {
    const text = await ask();
    onDisk(() => writeFileSync(file, text));
  } catch (reason) {
    rmSync(path, { force: true });
    throw reason;
  } finally {
    closeSync(file);
  }
}
