/** A file system that nobody used before, so that both sides of a comparison find the same one, however old the machine's is. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The file is sparse: it takes what is written to it. */
const SIZE_BYTES = 8 * 1024 ** 3;

/** Runs `work` with `TMPDIR` on an ext4 of its own, with a journal, in a file. Needs root. */
export async function onFreshDisk<T>(work: () => Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), "swarm-disk-"));
  const [image, mounted] = [join(directory, "image"), join(directory, "mounted")];
  writeFileSync(image, "");
  truncateSync(image, SIZE_BYTES);
  mkdirSync(mounted);
  const before = process.env.TMPDIR;
  try {
    execFileSync("mkfs.ext4", ["-q", "-F", image]);
    execFileSync("mount", ["-o", "loop", image, mounted]);
    process.env.TMPDIR = mounted;
    return await work();
  } finally {
    if (process.env.TMPDIR === mounted) execFileSync("umount", [mounted]);
    if (before === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = before;
    rmSync(directory, { recursive: true });
  }
}
