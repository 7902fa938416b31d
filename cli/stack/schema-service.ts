/** The schema of a service: compose v3.13 as docker/cli has it and, where Docker's stacks refuse it, the compose specification. */
import {
  asBuild,
  asDependencies,
  asEnvironment,
  asExtends,
  asHosts,
  asMode,
  asNetworks,
  asReference,
  asTexts,
  asWords,
} from "./normalise.ts";
import type { Rule } from "./rule.ts";
import { credentialSpec, deploy, healthcheck } from "./schema-deploy.ts";
import {
  anything,
  bytes,
  count,
  cpus,
  decided,
  duration,
  fields,
  flag,
  integer,
  listOf,
  looseFlag,
  looseInteger,
  looseTexts,
  memory,
  NAMES,
  number,
  open,
  options,
  pairs,
  sizeText,
  text,
  textOrTexts,
  texts,
  word,
} from "./schema-values.ts";
import { asPorts, portKey, shortPortProblem } from "./short-port.ts";
import { asMount } from "./short-volume.ts";
import { child, numberOf, type Tree, textOf } from "./tree.ts";

const byField =
  (name: string) =>
  (item: Tree): string =>
    textOf(child(item, name)) ?? textOf(item) ?? "";

const command: Rule = {
  scalar: { types: ["string"] },
  list: { item: text() },
  nullable: true,
  normalise: asWords,
  merge: "replace",
};

const reference: Rule = {
  scalar: { types: ["string"] },
  ...open({
    source: text(),
    target: text(),
    uid: text(),
    gid: text(),
    mode: { scalar: { types: ["integer", "string"], min: 0, max: 0o7777 }, normalise: asMode },
  }),
  normalise: asReference,
  printEmpty: true,
};

const references: Rule = {
  list: { item: reference },
  merge: { key: byField("source"), order: byField("source"), join: false },
};

const ulimits: Rule = {
  map: {
    names: /^[a-z]+$/,
    others: {
      scalar: { types: ["integer"] },
      ...fields({ soft: count({}), hard: count({}) }, { required: ["soft", "hard"], extensions: true }),
      printEmpty: true,
    },
  },
  merge: "entries",
};

const port: Rule = {
  scalar: { types: ["string", "number"], format: shortPortProblem },
  ...open({
    mode: text(),
    host_ip: text(),
    target: looseInteger({ min: 0, max: 65535 }),
    published: looseInteger({ min: 0, max: 65535 }),
    protocol: text(),
    name: text(),
    app_protocol: text(),
  }),
  printEmpty: true,
};

const ports: Rule = {
  list: { item: port },
  normalise: asPorts,
  merge: { key: portKey, order: (item) => numberOf(child(item, "published")) ?? 0, join: true },
};

const mount: Rule = {
  scalar: { types: ["string"] },
  ...open(
    {
      type: word("bind", "volume", "tmpfs", "cluster", "npipe", "image"),
      source: text(),
      target: text(),
      read_only: flag,
      consistency: text(),
      bind: {
        ...open({
          propagation: text(),
          create_host_path: decided,
          recursive: word("enabled", "disabled", "writable", "readonly"),
          selinux: word("z", "Z"),
        }),
        printEmpty: true,
      },
      volume: { ...open({ nocopy: flag, subpath: text(), labels: pairs }), printEmpty: true },
      tmpfs: {
        ...open({
          size: bytes,
          mode: { scalar: { types: ["integer", "string"], min: 0, max: 0o7777 }, normalise: asMode },
        }),
        printEmpty: true,
      },
      image: { ...open({ subpath: text() }), printEmpty: true },
    },
    { required: ["type"] },
  ),
  normalise: asMount,
};

const mounts: Rule = {
  list: { item: mount },
  merge: { key: byField("target"), order: byField("target"), join: false },
};

const networks: Rule = {
  list: { item: text(), unique: true },
  map: {
    names: NAMES,
    others: {
      nullable: true,
      printEmpty: true,
      ...open({
        aliases: { ...texts, merge: "replace" },
        driver_opts: options,
        ipv4_address: text(),
        ipv6_address: text(),
        interface_name: text(),
        link_local_ips: texts,
        mac_address: text(),
        priority: number,
        gw_priority: number,
      }),
    },
  },
  normalise: asNetworks,
};

const dependencies: Rule = {
  list: { item: text(), unique: true },
  map: {
    names: NAMES,
    others: open(
      {
        condition: word("service_started", "service_healthy", "service_completed_successfully"),
        required: decided,
        restart: looseFlag,
      },
      { required: ["condition"] },
    ),
  },
  merge: "append",
  align: asDependencies,
};

const build: Rule = {
  scalar: { types: ["string"] },
  // Docker's schema leaves it open, and nothing here builds.
  map: {
    fields: {
      context: text(),
      dockerfile: text(),
      args: { ...pairs, normalise: asEnvironment },
      labels: pairs,
      cache_from: texts,
      extra_hosts: { ...pairs, normalise: asHosts },
      network: text(),
      target: text(),
    },
    others: anything,
  },
  normalise: asBuild,
};

const envFile: Rule = {
  scalar: { types: ["string"] },
  list: {
    item: {
      scalar: { types: ["string"] },
      ...open({ path: text(), required: decided, format: word("raw") }, { required: ["path"] }),
    },
  },
  normalise: (node) => (node.kind === "scalar" ? { kind: "list", items: [node], place: node.place } : node),
  merge: "append",
};

const logging: Rule = { ...open({ driver: text(), options }), printEmpty: true, merge: "logging" };

const devices: Rule = {
  list: {
    item: {
      scalar: { types: ["string"] },
      ...open({ source: text(), target: text(), permissions: text() }, { required: ["source"] }),
    },
  },
  merge: "append",
};

const hosts: Rule = {
  list: { item: text(), unique: true },
  map: { others: { scalar: { types: ["string", "number"] }, list: { item: text() }, nullable: true } },
  normalise: asHosts,
  merge: "append",
};

const hooks: Rule = listOf(anything);

/** Fields that are known so that they are called by name when they are refused; what is in them is not looked at. */
const FOREIGN = Object.fromEntries(
  "blkio_config develop gpus models provider storage_opt label_file".split(" ").map((name) => [name, anything]),
);

export const service: Rule = open({
  ...FOREIGN,
  annotations: pairs,
  attach: looseFlag,
  build,
  cap_add: texts,
  cap_drop: texts,
  cgroup: word("host", "private"),
  cgroupns_mode: text(),
  cgroup_parent: text(),
  command,
  configs: references,
  container_name: text(),
  cpu_count: looseInteger({ min: 0 }),
  cpu_percent: { scalar: { types: ["number", "string"] } },
  cpu_period: { scalar: { types: ["number", "string"] } },
  cpu_quota: { scalar: { types: ["number", "string"] } },
  cpu_rt_period: { scalar: { types: ["number", "string"] } },
  cpu_rt_runtime: { scalar: { types: ["number", "string"] } },
  cpu_shares: looseInteger({ min: 0 }),
  cpus,
  cpuset: text(),
  credential_spec: credentialSpec,
  depends_on: dependencies,
  deploy,
  device_cgroup_rules: texts,
  devices,
  dns: textOrTexts,
  dns_opt: texts,
  dns_search: textOrTexts,
  domainname: text(),
  entrypoint: command,
  environment: { ...pairs, normalise: asEnvironment },
  env_file: envFile,
  expose: looseTexts,
  extends: {
    scalar: { types: ["string"] },
    ...fields({ service: text(), file: text() }, { required: ["service"] }),
    normalise: asExtends,
  },
  external_links: texts,
  extra_hosts: hosts,
  group_add: { ...looseTexts, normalise: asTexts },
  hostname: text(),
  healthcheck,
  image: text(),
  init: decided,
  ipc: text(),
  isolation: text(),
  labels: pairs,
  links: texts,
  logging,
  mac_address: text(),
  mem_limit: memory,
  mem_reservation: memory,
  mem_swappiness: { ...looseInteger({ min: 0, max: 100 }), printEmpty: true },
  memswap_limit: { scalar: { types: ["string", "integer"] } },
  network_mode: text(),
  networks,
  oom_kill_disable: looseFlag,
  oom_score_adj: looseInteger({ min: -1000, max: 1000 }),
  pid: { ...text(), nullable: true },
  pids_limit: looseInteger({ min: -1 }),
  platform: text(),
  ports,
  post_start: hooks,
  pre_stop: hooks,
  privileged: flag,
  profiles: texts,
  pull_policy: text(),
  pull_refresh_after: text(),
  read_only: flag,
  restart: text(),
  runtime: text(),
  scale: { ...integer({ min: 0 }), printEmpty: true },
  secrets: references,
  security_opt: texts,
  shm_size: sizeText,
  stdin_open: flag,
  stop_grace_period: duration,
  stop_signal: text(),
  sysctls: pairs,
  tmpfs: textOrTexts,
  tty: flag,
  ulimits,
  use_api_socket: flag,
  user: text(),
  userns_mode: text(),
  uts: text(),
  volume_driver: text(),
  volumes: mounts,
  volumes_from: texts,
  working_dir: text(),
});
