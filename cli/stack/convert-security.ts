/** Privileges of a service: devices, namespaces of the host, security options. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { DeviceSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { parseDevice } from "../flags/device.ts";
import { type SecurityInit, setSecurityOption } from "../security-option.ts";
import { type ContainerInit, textsOf } from "./convert-container.ts";
import { readText } from "./reader.ts";
import { fromDirectory, type ServiceSite } from "./site.ts";
import { child, flagOf, itemsOf, textOf } from "./tree.ts";

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
    // A long form is said in the short one's words, which have one reader.
    const long =
      item.kind === "map" ? ["source", "target", "permissions"].map((name) => textOf(child(item, name)) ?? "") : [];
    const text = item.kind === "map" ? long.join(":").replace(/:+$/, "") : (textOf(item) ?? "");
    const device = parseDevice(text);
    if (device.ok) return [device.value];
    site.refuse(item, path, device.problem);
    return [];
  });
}

function convertOptions(site: ServiceSite): SecurityInit | undefined {
  const items = itemsOf(site.at("security_opt"));
  if (items.length === 0) return undefined;
  const security: SecurityInit = {};
  items.forEach((item, index) => {
    const problem = setSecurityOption(security, textOf(item) ?? "", (path) =>
      readText(site.context.reader, fromDirectory(path, site.context)),
    );
    if (problem !== undefined) site.refuse(item, `security_opt[${index}]`, problem);
  });
  return security;
}
