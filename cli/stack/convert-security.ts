/** Privileges of a service: devices, namespaces of the host, security options. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { DeviceSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { type ContainerInit, textsOf } from "./convert-container.ts";
import { readText } from "./reader.ts";
import { fromDirectory, type ServiceSite } from "./site.ts";
import { child, flagOf, itemsOf, textOf } from "./tree.ts";

/** SecurityOptions while they are being gathered. */
interface SecurityInit {
  noNewPrivileges?: boolean;
  seccomp?: string;
  apparmor?: string;
  systemPathsUnconfined?: boolean;
}

/** What sets a container apart from others less than usual. */
export function convertSecurity(site: ServiceSite): ContainerInit {
  return {
    privileged: flagOf(site.at("privileged")) ?? false,
    security: convertOptions(site),
    devices: convertDevices(site),
    deviceCgroupRules: textsOf(site.at("device_cgroup_rules")),
    pidMode: namespaceMode(site, "pid", []),
    ipcMode: namespaceMode(site, "ipc", ["private", "shareable"]),
    utsMode: namespaceMode(site, "uts", []),
  };
}

function namespaceMode(site: ServiceSite, name: string, own: readonly string[]): string {
  const node = site.at(name);
  const text = textOf(node) ?? "";
  if (node === undefined || text === "" || own.includes(text)) return "";
  if (text !== "host") {
    site.refuse(
      node,
      name,
      `${JSON.stringify(text)} is not supported: tasks do not share namespaces with one another, only host is`,
    );
  }
  return "host";
}

function convertDevices(site: ServiceSite): MessageInitShape<typeof DeviceSchema>[] {
  return itemsOf(site.at("devices")).flatMap((item, index) => {
    const path = `devices[${index}]`;
    site.note(path, item, path);
    const parts = (textOf(item) ?? "").split(":");
    const [hostPath = "", second = "", third = ""] =
      item.kind === "map" ? ["source", "target", "permissions"].map((name) => textOf(child(item, name)) ?? "") : parts;
    const short = second !== "" && !second.startsWith("/") && third === "";
    const [containerPath, permissions] = short ? ["", second] : [second, third];
    if (!hostPath.startsWith("/") || parts.length > 3) {
      site.refuse(
        item,
        path,
        `${JSON.stringify(textOf(item) ?? hostPath)}: a device is written /dev/host[:/dev/container[:rwm]]`,
      );
      return [];
    }
    if (!/^[rwm]{0,3}$/.test(permissions ?? "")) {
      site.refuse(item, path, `invalid device mode: ${JSON.stringify(permissions)}`);
      return [];
    }
    return [{ hostPath, containerPath: containerPath ?? "", permissions: permissions ?? "" }];
  });
}

function convertOptions(site: ServiceSite): SecurityInit | undefined {
  const items = itemsOf(site.at("security_opt"));
  if (items.length === 0) return undefined;
  const security: SecurityInit = {};
  items.forEach((item, index) => {
    const problem = setOption(security, textOf(item) ?? "", site);
    if (problem !== undefined) site.refuse(item, `security_opt[${index}]`, problem);
  });
  return security;
}

/** Docker's options (docker run --security-opt); returns what is wrong with one. */
function setOption(security: SecurityInit, option: string, site: ServiceSite): string | undefined {
  const [, key = "", value] = /^([^:=]+)(?:[:=](.*))?$/s.exec(option) ?? [];
  switch (key) {
    case "no-new-privileges":
      if (value !== undefined && value !== "true" && value !== "false")
        return `invalid --security-opt: ${JSON.stringify(option)}`;
      security.noNewPrivileges = value !== "false";
      return undefined;
    case "systempaths":
      if (value !== "unconfined") return `invalid --security-opt: ${JSON.stringify(option)}`;
      security.systemPathsUnconfined = true;
      return undefined;
    case "apparmor":
      security.apparmor = value ?? "";
      return undefined;
    case "seccomp":
      return setSeccomp(security, value ?? "", site);
    case "label":
      return "SELinux labels are not supported";
    default:
      return `invalid --security-opt: ${JSON.stringify(option)}`;
  }
}

function setSeccomp(security: SecurityInit, value: string, site: ServiceSite): string | undefined {
  if (value === "builtin") return undefined;
  if (value === "unconfined" || value.startsWith("{")) {
    security.seccomp = value;
    return undefined;
  }
  const profile = readText(site.context.reader, fromDirectory(value, site.context));
  if (!profile.ok) return `opening seccomp profile ${JSON.stringify(value)} failed: ${profile.problem}`;
  try {
    security.seccomp = JSON.stringify(JSON.parse(profile.value));
  } catch {
    return `compacting json for seccomp profile ${JSON.stringify(value)} failed: not JSON`;
  }
  return undefined;
}
