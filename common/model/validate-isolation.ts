/** Checks of how far a container is set apart from its host: privileges, filters, devices, the host's namespaces. */
import { type ContainerSpec, type Device, type Mount, PullPolicy } from "../../proto/gen/swarm/v1/types_pb.js";
import { parseDeviceRule } from "./device-rule.ts";
import { readSeccompDocument } from "./seccomp-document.ts";
import { lineProblem } from "./text.ts";
import { quoted } from "./units.ts";
import type { Problems } from "./validate-parts.ts";

const DEVICES_MAX = 256;
const PATH_LENGTH_MAX = 4096;
/** A tmpfs of more than any machine's memory is a typing error. */
const SHM_SIZE_BYTES_MAX = 2n ** 50n;
const PROFILE_NAME_LENGTH_MAX = 255;

/** Every bad field that concerns them, by its name in stack files. */
export function checkIsolation(container: ContainerSpec, problems: Problems): void {
  const { security, deviceCgroupRules, shmSizeBytes } = container;
  checkSeccomp(security?.seccomp ?? "", problems);
  problems.text("security_opt.apparmor", lineProblem(security?.apparmor ?? "", PROFILE_NAME_LENGTH_MAX));
  checkDevices(container.devices, problems);
  if (deviceCgroupRules.length > DEVICES_MAX) problems.add("device_cgroup_rules", `at most ${DEVICES_MAX} rules`);
  deviceCgroupRules.slice(0, DEVICES_MAX).forEach((rule, index) => {
    const parsed = parseDeviceRule(rule);
    if (!parsed.ok) problems.add(`device_cgroup_rules[${index}]`, parsed.problem);
  });
  if (container.privileged && deviceCgroupRules.length > 0) {
    problems.add("device_cgroup_rules", "say nothing beside privileged, which allows every device");
  }
  if (shmSizeBytes < 0n || shmSizeBytes > SHM_SIZE_BYTES_MAX) {
    problems.add("shm_size", `invalid size ${shmSizeBytes}: Must be from 0 to 1PiB`);
  }
  checkNamespaces(container, problems);
  problems.known("pull_policy", container.pullPolicy, PullPolicy);
}

function checkSeccomp(profile: string, problems: Problems): void {
  if (profile === "" || profile === "unconfined") return;
  const read = readSeccompDocument(profile);
  if (read.ok) return;
  for (const { field, problem } of read.problems) {
    problems.add(field === "" ? "security_opt.seccomp" : `security_opt.seccomp.${field}`, problem);
  }
}

function checkDevices(devices: readonly Device[], problems: Problems): void {
  if (devices.length > DEVICES_MAX) problems.add("devices", `at most ${DEVICES_MAX} devices`);
  const targets = new Set<string>();
  devices.slice(0, DEVICES_MAX).forEach(({ hostPath, containerPath, permissions }, index) => {
    const field = `devices[${index}]`;
    for (const path of new Set([hostPath, containerPath || hostPath])) {
      problems.text(field, lineProblem(path, PATH_LENGTH_MAX));
      const plain = path.startsWith("/") && !path.split("/").some((name) => name === "." || name === "..");
      if (!plain) problems.add(field, `${quoted(path)} is not an absolute path`);
    }
    if (!/^[rwm]{0,3}$/.test(permissions)) problems.add(field, `invalid device mode: ${quoted(permissions)}`);
    const target = containerPath || hostPath;
    if (targets.has(target)) problems.add(field, `duplicate device: ${quoted(target)}`);
    targets.add(target);
  });
}

/** What cannot be had with the host's own is refused, not passed over. */
function checkNamespaces(container: ContainerSpec, problems: Problems): void {
  const modes = { pid: container.pidMode, ipc: container.ipcMode, uts: container.utsMode };
  for (const [field, mode] of Object.entries(modes)) {
    if (mode !== "" && mode !== "host") problems.add(field, `invalid mode ${quoted(mode)}: only host is known`);
  }
  if (modes.uts === "host" && container.hostname !== "") {
    problems.add("hostname", "conflicting options: hostname and the host's UTS namespace");
  }
  if (container.shmSizeBytes !== 0n) {
    if (modes.ipc === "host") problems.add("shm_size", "conflicting options: with ipc host, /dev/shm is the host's");
    if (container.mounts.some(isShm))
      problems.add("shm_size", "conflicting options: a mount takes the place of /dev/shm");
  }
  for (const name of Object.keys(container.sysctls)) {
    if (modes.ipc === "host" && !name.startsWith("net.")) {
      problems.add(`sysctls.${name}`, "conflicting options: with ipc host it would change the host");
    }
  }
}

function isShm({ target }: Mount): boolean {
  return target.replace(/\/+/g, "/").replace(/\/$/, "") === "/dev/shm";
}
