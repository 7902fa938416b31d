/** The schema of `deploy` (compose schema v3.13 and the specification's deploy.md). */
import { asTest } from "./normalise.ts";
import type { Rule } from "./rule.ts";
import {
  count,
  cpus,
  delay,
  duration,
  fields,
  flag,
  integer,
  listOf,
  looseInteger,
  memory,
  open,
  options,
  pairs,
  text,
  texts,
  word,
  words,
} from "./schema-values.ts";

const updateConfig: Rule = open({
  parallelism: count(),
  delay,
  failure_action: text(),
  monitor: delay,
  max_failure_ratio: { scalar: { types: ["number"], min: 0, max: 1 } },
  order: word("start-first", "stop-first"),
});

/** Devices that a task asks for, such as GPUs. */
const deviceRequests: Rule = listOf(
  open({
    capabilities: texts,
    count: { scalar: { types: ["integer", "string"] } },
    device_ids: texts,
    driver: text(),
    options,
  }),
);

const limits: Rule = open({ cpus, memory, pids: looseInteger() });

const reservations: Rule = open({
  cpus,
  memory,
  generic_resources: listOf(
    open({ discrete_resource_spec: open({ kind: text(), value: { scalar: { types: ["number", "string"] } } }) }),
  ),
  devices: deviceRequests,
});

export const deploy: Rule = {
  nullable: true,
  ...open({
    mode: text(),
    replicas: count({ min: 0, max: Number.MAX_SAFE_INTEGER }),
    max_concurrent: count({ min: 0, max: Number.MAX_SAFE_INTEGER }),
    labels: pairs,
    update_config: { ...updateConfig, printEmpty: true },
    rollback_config: { ...updateConfig, printEmpty: true },
    resources: open({
      limits: { ...limits, printEmpty: true },
      reservations: { ...reservations, printEmpty: true },
    }),
    restart_policy: {
      ...open({ condition: text(), delay: duration, max_attempts: count(), window: duration }),
      printEmpty: true,
    },
    placement: open({
      constraints: words,
      preferences: listOf({ ...open({ spread: text() }), printEmpty: true }),
      max_replicas_per_node: integer({ min: 0 }),
    }),
    endpoint_mode: text(),
  }),
};

export const healthcheck: Rule = {
  ...open({
    test: { scalar: { types: ["string"] }, list: { item: text() }, normalise: asTest, merge: "replace" },
    timeout: duration,
    interval: duration,
    retries: { ...looseInteger({ min: 0, max: 2 ** 31 - 1 }), printEmpty: true },
    start_period: duration,
    start_interval: duration,
    disable: flag,
  }),
  printEmpty: true,
};

export const credentialSpec: Rule = fields({ config: text(), file: text(), registry: text() });
