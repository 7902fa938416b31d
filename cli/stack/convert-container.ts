/** What runs: a service's process, surroundings and privileges → ContainerSpec (docker/cli cli/compose/convert/service.go). */
import { isIP } from "node:net";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { toDuration } from "../../common/model/duration.ts";
import { parseBytes, parseDurationMs } from "../../common/model/units.ts";
import {
  type ContainerSpec,
  type ContainerSpecSchema,
  PullPolicy,
  type UlimitSchema,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { convertFiles } from "./convert-files.ts";
import { convertMounts } from "./convert-mounts.ts";
import { convertSecurity } from "./convert-security.ts";
import type { ServiceSite } from "./site.ts";
import { child, entriesOf, flagOf, isNull, itemsOf, numberOf, type Tree, textOf } from "./tree.ts";

export type ContainerInit = Exclude<MessageInitShape<typeof ContainerSpecSchema>, ContainerSpec>;

/** Bears the stack's name on everything that belongs to it. */
export const NAMESPACE_LABEL = "com.docker.stack.namespace";

/** The container of a service. */
export function convertContainer(site: ServiceSite): ContainerInit {
  const text = (name: string) => textOf(site.at(name)) ?? "";
  const init = flagOf(site.at("init"));
  return {
    image: text("image"),
    command: textsOf(site.at("entrypoint")),
    args: textsOf(site.at("command")),
    env: convertEnvironment(site),
    dir: text("working_dir"),
    user: text("user"),
    groups: textsOf(site.at("group_add")),
    hostname: text("hostname"),
    labels: { ...recordOf(site.at("labels")), [NAMESPACE_LABEL]: site.context.stack },
    tty: flagOf(site.at("tty")) ?? false,
    openStdin: flagOf(site.at("stdin_open")) ?? false,
    readOnly: flagOf(site.at("read_only")) ?? false,
    mounts: convertMounts(site),
    stopSignal: text("stop_signal"),
    ...(site.at("stop_grace_period") && { stopGracePeriod: durationOf(site.at("stop_grace_period")) }),
    healthcheck: convertHealth(site),
    hosts: convertHosts(site),
    dns: convertDns(site),
    ...(init === undefined ? {} : { init }),
    capAdd: textsOf(site.at("cap_add")),
    capDrop: textsOf(site.at("cap_drop")),
    sysctls: recordOf(site.at("sysctls")),
    ulimits: convertUlimits(site),
    oomScoreAdj: numberOf(site.at("oom_score_adj")) ?? 0,
    ...convertFiles(site),
    ...convertSecurity(site),
    shmSizeBytes: bytesOf(site.at("shm_size")),
    pullPolicy: convertPullPolicy(site),
  };
}

/** The texts of a list. */
export function textsOf(node: Tree | undefined): string[] {
  return itemsOf(node).map((item) => textOf(item) ?? "");
}

/** A map of texts. */
export function recordOf(node: Tree | undefined): Record<string, string> {
  return Object.fromEntries(entriesOf(node).map(([name, value]) => [name, textOf(value) ?? ""]));
}

/** A duration that the schema has let pass. */
export function durationOf(node: Tree | undefined): ReturnType<typeof toDuration> | undefined {
  const text = textOf(node);
  const parsed = text === undefined ? undefined : parseDurationMs(text);
  return parsed?.ok ? toDuration(parsed.value) : undefined;
}

/** A size that the schema has let pass, in bytes; 0 where there is none. */
export function bytesOf(node: Tree | undefined): bigint {
  const parsed = parseBytes(textOf(node) ?? "0");
  return BigInt(parsed.ok ? parsed.value : 0);
}

/** Sorted, as Docker has them. A variable without a value, neither here nor at the caller's, is left out. */
function convertEnvironment(site: ServiceSite): string[] {
  const set = entriesOf(site.at("environment")).filter(([, value]) => !isNull(value));
  const sorted = set.toSorted(([a], [b]) => (a < b ? -1 : 1));
  return sorted.map(([name, value], index) => {
    site.note(`env[${index}]`, value, `environment.${name}`);
    return `${name}=${textOf(value) ?? ""}`;
  });
}

function convertHealth(site: ServiceSite): ContainerInit["healthcheck"] {
  const health = site.at("healthcheck");
  if (health === undefined) return undefined;
  const test = child(health, "test");
  const words = textsOf(test);
  if (flagOf(child(health, "disable")) === true) {
    if (test !== undefined && words[0] !== "NONE") {
      site.refuse(test, "healthcheck.test", "test and disable can't be set at the same time");
    }
    return { test: ["NONE"] };
  }
  if (health.kind === "map" && health.entries.size === 0) return undefined;
  return {
    test: words,
    interval: durationOf(child(health, "interval")),
    timeout: durationOf(child(health, "timeout")),
    retries: numberOf(child(health, "retries")) ?? 0,
    startPeriod: durationOf(child(health, "start_period")),
    startInterval: durationOf(child(health, "start_interval")),
  };
}

/** `name:address` or `name=address` as the line of /etc/hosts. */
function convertHosts(site: ServiceSite): string[] {
  return itemsOf(site.at("extra_hosts")).flatMap((item, index) => {
    const text = textOf(item) ?? "";
    const [, name = "", address = ""] = /^([^:=]+)[:=]\[?(.*?)\]?$/.exec(text) ?? [];
    if (isIP(address) !== 0) return [`${address} ${name}`];
    site.refuse(item, `extra_hosts[${index}]`, `bad format for extra host: ${JSON.stringify(text)} (name:address)`);
    return [];
  });
}

function convertDns(site: ServiceSite): ContainerInit["dns"] {
  const [nameservers, search, options] = ["dns", "dns_search", "dns_opt"].map((name) => textsOf(site.at(name)));
  if ([nameservers, search, options].every((list) => list?.length === 0)) return undefined;
  return { nameservers: nameservers ?? [], search: search ?? [], options: options ?? [] };
}

function convertUlimits(site: ServiceSite): MessageInitShape<typeof UlimitSchema>[] {
  const sorted = entriesOf(site.at("ulimits")).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return sorted.map(([name, value], index) => {
    site.note(`ulimits[${index}]`, value, `ulimits.${name}`);
    const single = numberOf(value);
    const soft = single ?? numberOf(child(value, "soft")) ?? 0;
    const hard = single ?? numberOf(child(value, "hard")) ?? 0;
    return { name, soft: BigInt(soft), hard: BigInt(hard) };
  });
}

const PULL_POLICIES: Readonly<Record<string, PullPolicy>> = {
  always: PullPolicy.ALWAYS,
  never: PullPolicy.NEVER,
  missing: PullPolicy.MISSING,
  if_not_present: PullPolicy.MISSING,
};

function convertPullPolicy(site: ServiceSite): PullPolicy {
  const node = site.at("pull_policy");
  const text = textOf(node);
  if (node === undefined || text === undefined) return PullPolicy.MISSING;
  const policy = Object.hasOwn(PULL_POLICIES, text) ? PULL_POLICIES[text] : undefined;
  if (policy === undefined) {
    site.refuse(
      node,
      "pull_policy",
      `${JSON.stringify(text)} is not supported: ${Object.keys(PULL_POLICIES).join(", ")}`,
    );
  }
  return policy ?? PullPolicy.MISSING;
}
