/**
 * Linux capabilities: their names and numbers, the set a container starts with, and Docker's words for changing it.
 * Pure; the shim is told bit masks and knows no names.
 */
import type { FieldProblem } from "../../common/base/error.ts";

/** Every capability in the order of its number, 0 to 40 (include/uapi/linux/capability.h). */
export const CAPABILITY_NAMES = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_DAC_READ_SEARCH",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SETPCAP",
  "CAP_LINUX_IMMUTABLE",
  "CAP_NET_BIND_SERVICE",
  "CAP_NET_BROADCAST",
  "CAP_NET_ADMIN",
  "CAP_NET_RAW",
  "CAP_IPC_LOCK",
  "CAP_IPC_OWNER",
  "CAP_SYS_MODULE",
  "CAP_SYS_RAWIO",
  "CAP_SYS_CHROOT",
  "CAP_SYS_PTRACE",
  "CAP_SYS_PACCT",
  "CAP_SYS_ADMIN",
  "CAP_SYS_BOOT",
  "CAP_SYS_NICE",
  "CAP_SYS_RESOURCE",
  "CAP_SYS_TIME",
  "CAP_SYS_TTY_CONFIG",
  "CAP_MKNOD",
  "CAP_LEASE",
  "CAP_AUDIT_WRITE",
  "CAP_AUDIT_CONTROL",
  "CAP_SETFCAP",
  "CAP_MAC_OVERRIDE",
  "CAP_MAC_ADMIN",
  "CAP_SYSLOG",
  "CAP_WAKE_ALARM",
  "CAP_BLOCK_SUSPEND",
  "CAP_AUDIT_READ",
  "CAP_PERFMON",
  "CAP_BPF",
  "CAP_CHECKPOINT_RESTORE",
] as const;

export type CapabilityName = (typeof CAPABILITY_NAMES)[number];

/**
 * What a container gets unless its service says otherwise: podman's eleven. Docker gives three more (MKNOD, NET_RAW,
 * AUDIT_WRITE) that ordinary services do not use; whoever needs one adds it by name.
 */
export const DEFAULT_CAPABILITIES: readonly CapabilityName[] = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SETPCAP",
  "CAP_NET_BIND_SERVICE",
  "CAP_SYS_CHROOT",
  "CAP_SETFCAP",
];

/** A service's wishes in Docker's words: names with or without `CAP_`, in any case, or `ALL`. */
export interface CapabilityChanges {
  readonly add?: readonly string[];
  readonly drop?: readonly string[];
}

/** The set in numeric order, or every name that is none. */
export type ResolvedCapabilities =
  | { readonly kind: "capabilities"; readonly capabilities: readonly CapabilityName[] }
  | { readonly kind: "invalid"; readonly problems: readonly FieldProblem[] };

/**
 * Applies `--cap-add` and `--cap-drop` to the default set as Docker does: `add ALL` is everything less what is
 * dropped by name, `drop ALL` is only what is added, and otherwise a name both added and dropped is added.
 */
export function resolveCapabilities(changes: CapabilityChanges): ResolvedCapabilities {
  const problems: FieldProblem[] = [];
  const add = parseNames("cap-add", changes.add ?? [], problems);
  const drop = parseNames("cap-drop", changes.drop ?? [], problems);
  if (problems.length > 0) return { kind: "invalid", problems };
  const has = (name: CapabilityName) => {
    if (add.all) return !drop.names.has(name);
    if (add.names.has(name)) return true;
    return !drop.all && DEFAULT_CAPABILITIES.includes(name) && !drop.names.has(name);
  };
  return { kind: "capabilities", capabilities: CAPABILITY_NAMES.filter(has) };
}

/** The set as the kernel's 64-bit mask, bit n for capability n (capset(2)). */
export function capabilityMask(capabilities: Iterable<CapabilityName>): bigint {
  let mask = 0n;
  for (const name of capabilities) mask |= 1n << BigInt(CAPABILITY_NAMES.indexOf(name));
  return mask;
}

/** The capability of this exact OCI name (`CAP_CHOWN`), or undefined: an unknown one is refused, never ignored. */
export function capabilityNamed(name: string): CapabilityName | undefined {
  return CAPABILITY_NAMES.find((known) => known === name);
}

interface ParsedNames {
  readonly all: boolean;
  readonly names: ReadonlySet<CapabilityName>;
}

function parseNames(field: string, words: readonly string[], problems: FieldProblem[]): ParsedNames {
  const names = new Set<CapabilityName>();
  let all = false;
  for (const word of words) {
    const upper = word.toUpperCase();
    const name = capabilityNamed(upper.startsWith("CAP_") ? upper : `CAP_${upper}`);
    if (upper === "ALL" || upper === "CAP_ALL") all = true;
    else if (name !== undefined) names.add(name);
    else problems.push({ field, problem: `unknown capability ${JSON.stringify(word)}` });
  }
  return { all, names };
}
