/** An authority as a company has it: an intermediate below a root, which may sign no other authority. */
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

/** Made now, if no other time is said. */
export async function createIntermediate(nowMs = systemClock.nowMs()): Promise<Files> {
  const root = await openAuthority(await createRoot({ nowMs, entropy: systemEntropy }), nowMs);
  // A root of ours has room for two authorities below one another: the second may sign none.
  return await below(await openAuthority(await below(root, nowMs), nowMs), nowMs);
}

async function below(above: CertificateAuthority, nowMs: number): Promise<Files> {
  const files = await createRoot({ nowMs, entropy: systemEntropy });
  const { root } = await openAuthority(files, nowMs);
  const certificate = await crossSign(above, root, { nowMs, entropy: systemEntropy });
  return { certificates: `${certificate}${above.root.toString()}`, key: files.key };
}
