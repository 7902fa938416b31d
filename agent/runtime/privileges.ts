/**
 * How far a container is set apart from its host: capabilities, filter, devices, hidden paths and namespaces, from what its
 * service says. Pure.
 *
 * `privileged` means what Docker's users know by it: every capability, every device, no filter, no hidden or read-only path, the
 * cgroup writable. Its namespaces stay its own.
 */
import type { FieldProblem } from "../../common/base/error.ts";
import { parseDeviceRule } from "../../common/model/device-rule.ts";
import type { ContainerSpec } from "../../proto/gen/swarm/v1/types_pb.js";
import { DEFAULT_DEVICE_RULES } from "../cgroup/devices.ts";
import { type CapabilityName, capabilityMask, DEFAULT_CAPABILITIES, resolveCapabilities } from "./capabilities.ts";
import { customSeccompProfile } from "./custom-seccomp.ts";
import { maskedPaths, READONLY_PATHS } from "./default-mounts.ts";
import type { HostFacts } from "./host-facts.ts";
import type { OciDevice, OciDeviceCgroup, OciNamespace, OciSeccomp } from "./oci.ts";
import { defaultSeccompProfile } from "./seccomp-profile.ts";

/** What a service may say of it; a whole ContainerSpec fits. */
export type PrivilegeWishes = Partial<
  Pick<
    ContainerSpec,
    "privileged" | "security" | "capAdd" | "capDrop" | "deviceCgroupRules" | "pidMode" | "ipcMode" | "utsMode"
  >
>;

/** A device node of the host that the container gets. */
export interface ContainerDevice {
  readonly type: "c" | "b";
  /** Where the container finds it. */
  readonly path: string;
  readonly major: number;
  readonly minor: number;
  /** Some of `rwm`. */
  readonly access: string;
  readonly fileMode: number;
  readonly uid: number;
  readonly gid: number;
}

/** What the wishes are carried out with. */
export interface PrivilegeInput {
  readonly wishes: PrivilegeWishes;
  readonly devices: readonly ContainerDevice[];
  readonly network: "none" | "routed" | "host";
  readonly host: Pick<HostFacts, "architecture" | "cpus" | "kernel" | "apparmor" | "capabilityMask">;
}

/** The parts of an OCI spec that come of it. */
export interface Privileges {
  readonly privileged: boolean;
  readonly capabilities: readonly CapabilityName[];
  readonly noNewPrivileges: boolean;
  readonly seccomp: OciSeccomp | undefined;
  readonly maskedPaths: readonly string[];
  readonly readonlyPaths: readonly string[];
  readonly namespaces: readonly OciNamespace[];
  readonly devices: readonly OciDevice[];
  readonly deviceRules: readonly OciDeviceCgroup[];
}

/** Adds what is wrong to `problems`. */
export function privilegesOf({ wishes, devices, network, host }: PrivilegeInput, problems: FieldProblem[]): Privileges {
  const { privileged = false, security } = wishes;
  const open = privileged || (security?.systemPathsUnconfined ?? false);
  const capabilities = capabilitiesOf(wishes, host.capabilityMask, problems);
  apparmorProblem(security?.apparmor ?? "", host.apparmor, problems);
  return {
    privileged,
    capabilities,
    noNewPrivileges: security?.noNewPrivileges ?? !privileged,
    seccomp: seccompOf(wishes, { ...host, capabilities }),
    maskedPaths: open ? [] : maskedPaths(host.cpus),
    readonlyPaths: open ? [] : READONLY_PATHS,
    namespaces: namespacesOf(wishes, network),
    devices: devices.map(({ access: _, ...node }) => node),
    deviceRules: privileged ? ALL_DEVICES : [...DEFAULT_DEVICE_RULES, ...deviceRules(wishes, devices, problems)],
  };
}

const ALL_DEVICES: readonly OciDeviceCgroup[] = [{ allow: true, type: "a", access: "rwm" }];

/**
 * What a service drops by name is dropped from a privileged container too. "All" is all that the agent has to give, as with
 * Docker; one that is asked for by name and not there is refused, since the kernel would refuse it at the start.
 */
function capabilitiesOf(wishes: PrivilegeWishes, held: bigint, problems: FieldProblem[]): readonly CapabilityName[] {
  const { privileged = false, capAdd = [], capDrop = [] } = wishes;
  const resolved = resolveCapabilities({ add: privileged ? ["ALL", ...capAdd] : capAdd, drop: capDrop });
  if (resolved.kind === "invalid") {
    problems.push(...resolved.problems);
    return [];
  }
  const { capabilities } = resolved;
  const has = (name: CapabilityName) => (held & capabilityMask([name])) !== 0n;
  if (privileged || capAdd.some((word) => /^(?:CAP_)?ALL$/i.test(word))) return capabilities.filter(has);
  for (const name of capabilities) {
    const asked = !DEFAULT_CAPABILITIES.includes(name);
    if (asked && !has(name)) problems.push({ field: "cap-add", problem: `this node cannot give ${name}` });
  }
  return capabilities;
}

function seccompOf(
  { privileged = false, security }: PrivilegeWishes,
  host: Pick<HostFacts, "architecture" | "kernel"> & { readonly capabilities: readonly CapabilityName[] },
): OciSeccomp | undefined {
  const wish = security?.seccomp ?? "";
  if (wish === "unconfined" || (wish === "" && privileged)) return undefined;
  return wish === "" ? defaultSeccompProfile(host) : customSeccompProfile(wish, host);
}

/** A profile that is asked for and not there must not be passed over: the container would be less confined than it was meant to be. */
function apparmorProblem(profile: string, available: boolean, problems: FieldProblem[]): void {
  if (profile === "" || profile === "unconfined") return;
  const why = available ? "profiles of AppArmor cannot be applied yet" : "this node has no AppArmor";
  problems.push({ field: "security_opt.apparmor", problem: `${JSON.stringify(profile)}: ${why}` });
}

function namespacesOf(wishes: PrivilegeWishes, network: PrivilegeInput["network"]): readonly OciNamespace[] {
  const shared = { pid: wishes.pidMode, ipc: wishes.ipcMode, uts: wishes.utsMode, network };
  const types = ["mount", "pid", "ipc", "uts", "cgroup", "network"] as const;
  return types
    .filter((type) => !(type in shared && shared[type as keyof typeof shared] === "host"))
    .map((type) => ({ type }));
}

/** The right to make a device's node is part of having it: the shim makes it once the container is in its cgroup. */
function deviceRules(
  { deviceCgroupRules = [] }: PrivilegeWishes,
  devices: readonly ContainerDevice[],
  problems: FieldProblem[],
): readonly OciDeviceCgroup[] {
  const own = devices.map(
    ({ type, major, minor, access }): OciDeviceCgroup => ({
      allow: true,
      type,
      major,
      minor,
      access: access.includes("m") ? access : `${access}m`,
    }),
  );
  const written = deviceCgroupRules.flatMap((text, index) => {
    const parsed = parseDeviceRule(text);
    if (parsed.ok) return [parsed.value];
    problems.push({ field: `device_cgroup_rules[${index}]`, problem: parsed.problem });
    return [];
  });
  return [...own, ...written];
}
