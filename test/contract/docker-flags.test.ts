/**
 * Docker's flags. Goal: whoever knows `docker service create` finds every flag here, working or refused by name. Method: the
 * lists of docker/cli 28 (`--help` of each swarm-related command) against the command table.
 */
import { expect, test } from "vitest";
import { ALIASES, COMMANDS } from "../../cli/command-table.ts";

const ROLLING = ["delay", "failure-action", "max-failure-ratio", "monitor", "order", "parallelism"];
/** Flags that `service create` and `service update` share. */
const SERVICE = `cap-add cap-drop credential-spec detach endpoint-mode entrypoint health-cmd health-interval health-retries
  health-start-interval health-start-period health-timeout hostname init isolation limit-cpu limit-memory limit-pids log-driver
  log-opt max-concurrent memory-swap memory-swappiness no-healthcheck no-resolve-image oom-score-adj quiet read-only replicas
  replicas-max-per-node reserve-cpu reserve-memory restart-condition restart-delay restart-max-attempts restart-window
  stop-grace-period stop-signal tty user with-registry-auth workdir ${ROLLING.map((name) => `update-${name} rollback-${name}`).join(" ")}`;
const LISTS = `config constraint container-label dns dns-option dns-search env generic-resource group host label mount network
  placement-pref publish secret sysctl ulimit`;

const words = (text: string) => text.split(/\s+/).filter(Boolean);

test.each<[string, readonly string[]]>([
  ["service create", words(`${SERVICE} ${LISTS} env-file mode name`)],
  [
    "service update",
    [
      ...words(`${SERVICE} args force image rollback`),
      ...words(LISTS).flatMap((name) => [`${name}-add`, `${name}-rm`]),
    ],
  ],
  ["service inspect", ["format", "pretty"]],
  ["service logs", words("details follow no-resolve no-task-ids no-trunc raw since tail timestamps")],
  ["service ls", ["filter", "format", "quiet"]],
  ["service ps", words("filter format no-resolve no-trunc quiet")],
  ["service rm", []],
  ["service rollback", ["detach", "quiet"]],
  ["service scale", ["detach"]],
  // `docker cp`.
  ["task cp", ["archive", "follow-link", "quiet"]],
  // `docker stats`, but for --all: what does not run uses nothing.
  ["service stats", ["format", "no-stream", "no-trunc"]],
  ["node inspect", ["format", "pretty"]],
  ["node ls", ["filter", "format", "quiet"]],
  ["node ps", words("filter format no-resolve no-trunc quiet")],
  ["node rm", ["force"]],
  ["node update", words("availability label-add label-rm role")],
  [
    "swarm update",
    words("autolock cert-expiry dispatcher-heartbeat external-ca max-snapshots snapshot-interval task-history-limit"),
  ],
  [
    "swarm init",
    words(
      "autolock availability cert-expiry data-path-addr data-path-port default-addr-pool default-addr-pool-mask-length",
    ),
  ],
  [
    "network create",
    words(`attachable aux-address config-from config-only driver gateway ingress internal ip-range ipam-driver ipam-opt ipv4 ipv6
      label opt scope subnet`),
  ],
  ["network connect", words("alias driver-opt gw-priority ip ip6 link link-local-ip")],
  ["network disconnect", ["force"]],
  ["network inspect", ["format", "verbose"]],
  ["network ls", words("filter format no-trunc quiet")],
  ["network prune", ["filter", "force"]],
  ["network rm", ["force"]],
  ["context create", ["description", "docker", "from"]],
  ["context inspect", ["format"]],
  ["context ls", ["format", "quiet"]],
  ["context rm", ["force"]],
  ["context update", ["description", "docker"]],
  ["info", ["format"]],
  ["version", ["format"]],
])("%s", async (name, flags) => {
  const { command } = (await COMMANDS[ALIASES[name] ?? name]?.load()) ?? {};
  expect(flags.filter((flag) => !Object.hasOwn(command?.flags ?? {}, flag))).toEqual([]);
});
