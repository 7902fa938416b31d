/** The seccomp filter of a container, for its first process and for every command that is run in it later. */
import type { ContainerRecord } from "./container-record.ts";
import { capabilityNamed } from "./runtime/capabilities.ts";
import type { OciSeccomp } from "./runtime/oci.ts";
import { compileSeccomp, seccompFlags } from "./runtime/seccomp.ts";
import { defaultSeccompProfile } from "./runtime/seccomp-profile.ts";
import type { CompiledSeccomp } from "./runtime/spec-plan.ts";
import type { Architecture } from "./runtime/syscalls.ts";

/** A profile in the form the kernel takes; undefined for a container without a filter. */
export function compiledSeccomp(
  profile: OciSeccomp | undefined,
  architecture: Architecture,
): CompiledSeccomp | undefined {
  return profile && { filter: compileSeccomp(profile, architecture), flags: seccompFlags(profile) };
}

/** What the container was started with, by its record: a command inside is held by the same filter. */
export function recordedSeccomp(record: ContainerRecord, architecture: Architecture): CompiledSeccomp | undefined {
  const { seccomp, process } = record;
  if (seccomp === "unconfined") return undefined;
  const names = (process.capabilities?.bounding ?? []).flatMap((name) => capabilityNamed(name) ?? []);
  return compiledSeccomp(seccomp ?? defaultSeccompProfile({ architecture, capabilities: names }), architecture);
}
