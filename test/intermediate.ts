/** An authority as a company has it: an intermediate below a root. */
import { systemClock } from "../common/base/clock.ts";
import { systemEntropy } from "../common/base/random.ts";
import {
  type AuthorityFiles,
  type CertificateAuthority,
  createRoot,
  crossSign,
  openAuthority,
} from "../common/pki/certificate-authority.ts";

type Files = Pick<AuthorityFiles, "certificates" | "key">;

/** Made now, if no other time is said. A root of ours has room for two `levels` below one another: the second may sign none. */
export async function createIntermediate(levels: 1 | 2, nowMs = systemClock.nowMs()): Promise<Files> {
  let files: Files = await createRoot({ nowMs, entropy: systemEntropy });
  for (let level = 0; level < levels; level++) files = await below(await openAuthority(files, nowMs), nowMs);
  return files;
}

async function below(above: CertificateAuthority, nowMs: number): Promise<Files> {
  const files = await createRoot({ nowMs, entropy: systemEntropy });
  const { root } = await openAuthority(files, nowMs);
  const certificate = await crossSign(above, root, { nowMs, entropy: systemEntropy });
  return { certificates: `${certificate}${above.root.toString()}`, key: files.key };
}
