/** A user's seccomp profile as the filter it comes to for one container on this host. Pure. */
import { invalidFields } from "../../common/base/error.ts";
import {
  readSeccompDocument,
  type SeccompCondition,
  type SeccompDocument,
} from "../../common/model/seccomp-document.ts";
import type { CapabilityName } from "./capabilities.ts";
import type { OciSeccomp } from "./oci.ts";
import type { Architecture } from "./syscalls.ts";

/** What a profile's conditions ask about. */
export interface SeccompHost {
  readonly architecture: Architecture;
  /** `uname -r`. */
  readonly kernel: string;
  readonly capabilities: readonly CapabilityName[];
}

const NATIVE: Readonly<Record<Architecture, { readonly scmp: string; readonly go: string }>> = {
  x86_64: { scmp: "SCMP_ARCH_X86_64", go: "amd64" },
  aarch64: { scmp: "SCMP_ARCH_AARCH64", go: "arm64" },
};

/** Profiles remembered: a host has few of them; beyond this they are read anew, not hoarded. */
const PROFILES_MAX = 16;
const profiles = new Map<string, OciSeccomp>();

/**
 * The profile of `text` (Docker's JSON). Equal input gives the identical object, so that `compileSeccomp` compiles it once.
 * System calls that this version does not know are passed over, as libseccomp does. Throws `invalid_argument` that names every
 * place that is wrong.
 */
export function customSeccompProfile(text: string, host: SeccompHost): OciSeccomp {
  const key = [host.architecture, host.kernel, [...host.capabilities].sort().join(), text].join(" ");
  const known = profiles.get(key);
  if (known !== undefined) return known;
  const read = readSeccompDocument(text);
  if (!read.ok) {
    const under = (field: string) => (field === "" ? "security_opt.seccomp" : `security_opt.seccomp.${field}`);
    throw invalidFields(read.problems.map(({ field, problem }) => ({ field: under(field), problem })));
  }
  const profile = profileOf(read.document, host);
  if (profiles.size >= PROFILES_MAX) profiles.clear();
  profiles.set(key, profile);
  return profile;
}

function profileOf(document: SeccompDocument, host: SeccompHost): OciSeccomp {
  const { scmp } = NATIVE[host.architecture];
  const mapped = document.archMap.find(({ architecture }) => architecture === scmp);
  const architectures = mapped ? [scmp, ...mapped.subArchitectures] : document.architectures;
  return {
    defaultAction: document.defaultAction,
    ...(document.defaultErrnoRet !== undefined && { defaultErrnoRet: document.defaultErrnoRet }),
    architectures,
    flags: document.flags,
    syscalls: document.syscalls
      .filter(({ includes, excludes }) => isIncluded(includes, host) && !isExcluded(excludes, host))
      .map(({ names, action, errnoRet, args }) => ({
        names,
        action,
        ...(errnoRet !== undefined && { errnoRet }),
        args,
      })),
  };
}

function isIncluded({ caps, arches, minKernel }: SeccompCondition, host: SeccompHost): boolean {
  const held = caps.every((name) => host.capabilities.some((each) => each === name));
  const here = arches.length === 0 || arches.includes(NATIVE[host.architecture].go);
  return held && here && (minKernel === "" || isAtLeast(host.kernel, minKernel));
}

function isExcluded({ caps, arches, minKernel }: SeccompCondition, host: SeccompHost): boolean {
  const held = caps.some((name) => host.capabilities.some((each) => each === name));
  const here = arches.includes(NATIVE[host.architecture].go);
  return held || here || (minKernel !== "" && isAtLeast(host.kernel, minKernel));
}

/** `6.18.5-amd64` is at least `4.8`. */
function isAtLeast(kernel: string, wanted: string): boolean {
  const [major = 0, minor = 0] = kernel.split(".").map((part) => Number.parseInt(part, 10));
  const [wantedMajor = 0, wantedMinor = 0] = wanted.split(".").map(Number);
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
}
