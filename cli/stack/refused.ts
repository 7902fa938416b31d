/** What a stack file may say and what cannot be done: each with its reason. `stack config` shows it, a deploy refuses it. Data. */
import type { ServiceSite } from "./site.ts";
import { child, flagOf, itemsOf, type Tree, textOf } from "./tree.ts";

const BY_NAME = "services of a stack find each other by name; further names are aliases under networks";
const NO_CFS = "set the CPUs with deploy.resources.limits.cpus";
const NO_HOOKS = "hooks of containers are not supported";

/** Fields of a service that are refused whatever they hold. */
const ALWAYS: Readonly<Record<string, string>> = {
  annotations: "annotations of the container's runtime are not supported: use labels",
  blkio_config: "block I/O limits are not supported",
  cgroup_parent: "every task has a cgroup of its own under the agent's",
  cpu_count: "is for Windows; use deploy.resources.limits.cpus",
  cpu_percent: "is for Windows; use deploy.resources.limits.cpus",
  cpu_period: NO_CFS,
  cpu_quota: NO_CFS,
  cpu_rt_period: "real-time scheduling is not supported",
  cpu_rt_runtime: "real-time scheduling is not supported",
  credential_spec: "is for Windows",
  develop: "is for development on one machine",
  domainname: "write the full name in hostname",
  external_links: BY_NAME,
  gpus: "devices of this kind are not supported",
  label_file: "write the labels into the file",
  mac_address: "it follows from the address",
  models: "models are not supported",
  platform: "say where it may run with deploy.placement.constraints: node.platform.arch == amd64",
  post_start: NO_HOOKS,
  pre_stop: NO_HOOKS,
  provider: "services by other programs are not supported",
  pull_refresh_after: "use pull_policy",
  runtime: "there is one container runtime",
  storage_opt: "options of storage drivers are not supported",
  use_api_socket: "there is no Docker socket",
  volume_driver: "volume drivers are not supported",
  volumes_from: "containers do not share mounts: name the volume in both services",
};

/** Fields of which some values are what happens anyway. */
const UNLESS: Readonly<Record<string, { readonly fine: readonly string[]; readonly reason: string }>> = {
  cgroup: { fine: ["private"], reason: "every task has a cgroup namespace of its own" },
  cgroupns_mode: { fine: ["private"], reason: "every task has a cgroup namespace of its own" },
  isolation: { fine: ["default"], reason: "is for Windows" },
  userns_mode: { fine: ["host"], reason: "user namespaces are not supported" },
  oom_kill_disable: { fine: ["false"], reason: "a task beyond its memory limit is killed" },
};

/** Refuses every field of the service that cannot be honoured. Those that only other programs read pass: attach, expose. */
export function refuseFields(site: ServiceSite): void {
  for (const [name, reason] of Object.entries(ALWAYS)) {
    const node = site.at(name);
    if (node !== undefined && !isEmpty(node)) site.refuse(node, name, `is not supported: ${reason}`);
  }
  for (const [name, { fine, reason }] of Object.entries(UNLESS)) {
    const node = site.at(name);
    if (node === undefined || fine.includes(textOf(node) ?? "")) continue;
    site.refuse(node, name, `${JSON.stringify(textOf(node))} is not supported: ${reason}`);
  }
  passOverNames(site);
  const build = site.at("build");
  if (build === undefined) return;
  const image = textOf(site.at("image"));
  if (image === undefined)
    site.refuse(build, "build", "stacks are not built: build the image, push it and name it in image");
  else site.warn(build, "build", `is not done: ${image} is taken as it is`);
}

/** Compose's names of containers: none of them changes what runs, but a link under another name, which nothing would answer to. */
function passOverNames(site: ServiceSite): void {
  const name = site.at("container_name");
  if (name !== undefined && !isEmpty(name)) {
    site.warn(name, "container_name", "is not taken: tasks are named after their service and slot");
  }
  const services = child(site.context.file, "services");
  itemsOf(site.at("links")).forEach((link, index) => {
    const text = textOf(link) ?? "";
    const [service = "", alias = service] = text.split(":");
    if (alias === service && services?.kind === "map" && services.entries.has(service)) return;
    site.refuse(link, `links[${index}]`, `${JSON.stringify(text)} is not supported: ${BY_NAME}`);
  });
}

function isEmpty(node: Tree): boolean {
  if (node.kind === "list") return itemsOf(node).length === 0;
  if (node.kind === "map") return node.entries.size === 0;
  return node.value === "" || flagOf(node) === false;
}
