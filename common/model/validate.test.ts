import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import {
  type ContainerSpec,
  type ContainerSpecSchema,
  NodeSpecSchema,
  type ServiceSpec,
  ServiceSpecSchema,
  type TaskSpec,
  type TaskSpecSchema,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { toDuration } from "./duration.ts";
import { validateNodeSpec, validateServiceSpec } from "./validate.ts";

type Init = Exclude<MessageInitShape<typeof ServiceSpecSchema>, ServiceSpec>;
type Task = Exclude<MessageInitShape<typeof TaskSpecSchema>, TaskSpec>;
type Container = Exclude<MessageInitShape<typeof ContainerSpecSchema>, ContainerSpec>;

function problems(init: Init): string[] {
  const spec = create(ServiceSpecSchema, { name: "web", task: { container: { image: "demo/web:1" } }, ...init });
  return validateServiceSpec(spec).map(({ field, problem }) => `${field}: ${problem}`);
}

const task = (part: Task): Init => ({ task: { container: { image: "demo/web:1" }, ...part } });
const container = (part: Container): Init => ({ task: { container: { image: "demo/web:1", ...part } } });

test("a plain spec, and one with everything that is allowed, has no problem", () => {
  expect(problems({})).toEqual([]);
  expect(
    problems({
      labels: { tier: "front\nback" },
      mode: { mode: { case: "global", value: {} } },
      update: { parallelism: 0n, delay: toDuration(1000), maxFailureRatio: 1 },
      endpoint: {
        ports: [
          { targetPort: 80, publishedPort: 8080 },
          { targetPort: 80, publishedPort: 8080, protocol: 1 },
        ],
      },
      task: {
        resources: { limits: { nanoCpus: 1_000_000n, memoryBytes: 4194304n, pids: 10n } },
        restart: { delay: toDuration(0) },
        placement: { constraints: ["node.role==worker"], preferences: [{ spread: "node.labels.zone" }] },
        networks: [{ target: "bridge" }],
        container: {
          image: `demo/web:1@sha256:${"a".repeat(64)}`,
          env: ["A=b", "HOST={{.Node.Hostname}}", "EMPTY="],
          hostname: "{{.Service.Name}}-{{.Task.Slot}}",
          stopSignal: "RTMIN+3",
          healthcheck: { test: ["CMD-SHELL", "true"], interval: toDuration(1) },
          mounts: [
            { type: 1, source: "/etc", target: "/host/etc" },
            { type: 2, target: "/tmp", tmpfsMode: 0o1777 },
            { source: "data-{{.Task.Slot}}", target: "/data" },
          ],
          hosts: ["10.0.0.1 db"],
          dns: { nameservers: ["1.1.1.1"], search: ["example.com"], options: ["ndots:2"] },
          capAdd: ["NET_ADMIN", "cap_sys_time", "ALL"],
          sysctls: { "net.core.somaxconn": "1024" },
          ulimits: [{ name: "nofile", soft: 1024n, hard: -1n }],
        },
      },
    }),
  ).toEqual([]);
});

describe("names", () => {
  test.each(["a\nb", "\u001b[2J", "a".repeat(10_000), "-a", "a-", "a/b", "a b", "ä"])("%j is refused", (name) => {
    const [first] = problems({ name });
    expect(first).toMatch(/^name: name must be (63 characters or fewer|valid as a DNS name component: )/);
    expect(first?.length).toBeLessThan(200);
  });
  test("none at all", () => expect(problems({ name: "" })).toEqual(["name: name must be provided"]));
});

describe("image references (cases 88-92)", () => {
  test.each([" ", "UPPER/case", "a//b", "a:tag:tag", "a@sha256:short", "-a", "x".repeat(300), `a:${"t".repeat(129)}`])(
    "%j",
    (image) =>
      expect(problems(container({ image }))).toEqual([`image: ${JSON.stringify(image)} is not a valid repository/tag`]),
  );
  test.each([
    ["", "image: image reference must be provided"],
    [
      "f".repeat(64),
      `image: "${"f".repeat(64)}" is not a valid repository/tag: 64 hexadecimal digits are ambiguous with an id`,
    ],
    ["host:99999/a", 'image: "host:99999/a" is not a valid repository/tag: bad port 99999'],
    ["http://a/b", 'image: "http://a/b" is not a valid repository/tag: not a reference but a URL'],
  ])("%j", (image, problem) => expect(problems(container({ image }))).toEqual([problem]));
});

describe("each bad field is named", () => {
  test.each<[string, Init, string]>([
    [
      "memory",
      task({ resources: { limits: { memoryBytes: 1024n } } }),
      "resources.limits.memory: invalid memory value 1024: Must be at least 4MiB",
    ],
    [
      "negative memory",
      task({ resources: { reservations: { memoryBytes: -5n } } }),
      "resources.reservations.memory: invalid memory value -5: Must be at least 4MiB",
    ],
    [
      "cpus",
      task({ resources: { limits: { nanoCpus: -1_000_000_000n } } }),
      "resources.limits.cpus: invalid cpu value -1: Must be at least 0.001",
    ],
    [
      "pids",
      task({ resources: { limits: { pids: -1n } } }),
      "resources.limits.pids: invalid pids value -1: Must be from 0 to 4194304",
    ],
    [
      "generic",
      task({ resources: { reservations: { generic: [{ kind: "gpu", count: 1n }] } } }),
      'resources.reservations.generic: generic resources are not supported: "gpu"',
    ],
    ["delay", task({ restart: { delay: toDuration(-1) } }), "restart_policy.delay: cannot be negative"],
    ["overflow", task({ restart: { window: { seconds: 2n ** 62n } } }), "restart_policy.window: is too long"],
    [
      "nanos",
      task({ restart: { window: { seconds: 1n, nanos: 2_000_000_000 } } }),
      "restart_policy.window: is too long",
    ],
    ["condition", task({ restart: { condition: 17 as 0 } }), "restart_policy.condition: unknown value 17"],
    [
      "constraint",
      task({ placement: { constraints: ["node.role = = x"] } }),
      'placement.constraints[0]: constraint "node.role = = x": expected one operator from ==, !=',
    ],
    [
      "preference",
      task({ placement: { preferences: [{ spread: "zone" }] } }),
      'placement.preferences[0]: spread must name node.labels.KEY or engine.labels.KEY, not "zone"',
    ],
    [
      "log driver",
      task({ logDriver: { name: "syslog" } }),
      'logging.driver: log driver "syslog" is not supported: json-file, local or none',
    ],
    [
      "log option",
      task({ logDriver: { name: "json-file", options: { "max-size": "10m", "max-file": "0" } } }),
      'logging.options."max-file": invalid value "0": must be from 1 to 99',
    ],
    [
      "subpath",
      container({ mounts: [{ source: "a", target: "/a", volumeSubpath: "b/../../c" }] }),
      'mounts[0].volume-subpath: "b/../../c" must not contain ..',
    ],
    [
      "ingress",
      task({ networks: [{ target: "ingress" }] }),
      "networks[0]: services are not attached to the routing mesh: publish ports",
    ],
    ["twice", task({ networks: [{ target: "a" }, { target: "a" }] }), 'networks[1]: "a" stands twice'],
    [
      "host and more",
      task({ networks: [{ target: "a" }, { target: "host" }] }),
      "networks: host and none cannot stand beside other networks",
    ],
    [
      "alias on bridge",
      task({ networks: [{ target: "bridge", aliases: ["x"] }] }),
      "networks[0]: network bridge has neither aliases nor fixed addresses",
    ],
    [
      "alias",
      task({ networks: [{ target: "a", aliases: ["x y"] }] }),
      'networks[0].aliases: "x y" is not a name that DNS has',
    ],
    [
      "attachment's option",
      task({ networks: [{ target: "a", driverOpts: { x: "y" } }] }),
      'networks[0].driver_opts: unknown option "x": attachments have none',
    ],
    [
      "fixed address",
      task({ networks: [{ target: "a", addresses: ["10.0.1"] }] }),
      'networks[0].addresses: "10.0.1" is not an IP address',
    ],
    [
      "two of a family",
      task({ networks: [{ target: "a", addresses: ["10.0.1.2", "10.0.1.3"] }] }),
      "networks[0].addresses: a second IPv4 address",
    ],
    [
      "fixed address of two",
      {
        ...task({ networks: [{ target: "a", addresses: ["10.0.1.2"] }] }),
        mode: { mode: { case: "replicated", value: { replicas: 2n } } },
      },
      "networks[0].addresses: a fixed address needs a service of one replica",
    ],
    [
      "fixed address, start-first",
      { ...task({ networks: [{ target: "a", addresses: ["10.0.1.2"] }] }), update: { order: 1 } },
      "networks[0].addresses: a fixed address needs the update order stop-first",
    ],
    [
      "jobs",
      { mode: { mode: { case: "replicatedJob", value: {} } }, update: {} },
      "update_config: jobs may not have an update config",
    ],
    ["itself", { dependsOn: [{ service: "web" }] }, "depends_on[0]: a service cannot wait for itself"],
    ["twice", { dependsOn: [{ service: "db" }, { service: "db" }] }, 'depends_on[1]: "db" is named twice'],
    [
      "replicas",
      { mode: { mode: { case: "replicated", value: { replicas: 10n ** 18n } } } },
      "replicas: 1000000000000000000 is too many: at most 1000000",
    ],
    [
      "ratio",
      { update: { maxFailureRatio: 1.5 } },
      "update_config.max_failure_ratio: cannot be less than 0 or bigger than 1",
    ],
    [
      "NaN",
      { update: { maxFailureRatio: Number.NaN } },
      "update_config.max_failure_ratio: cannot be less than 0 or bigger than 1",
    ],
    [
      "rollback of a rollback",
      { rollback: { failureAction: 2 } },
      'rollback_config.failure_action: must be "pause" or "continue"',
    ],
    [
      "dnsrr",
      { endpoint: { mode: 1, ports: [{ targetPort: 80 }] } },
      "endpoint_mode: port published with ingress mode can't be used with dnsrr mode",
    ],
    [
      "affinity with dnsrr",
      { endpoint: { mode: 1, affinity: 1 } },
      "session_affinity: needs the endpoint mode vip: with dnsrr clients choose the task",
    ],
    [
      "port 0",
      { endpoint: { ports: [{ targetPort: 0 }] } },
      "ports[0].target: invalid port 0: must be from 1 to 65535",
    ],
    [
      "port 70000",
      { endpoint: { ports: [{ targetPort: 80, publishedPort: 70000 }] } },
      "ports[0].published: invalid port 70000: must be at most 65535",
    ],
    [
      "twice",
      {
        endpoint: {
          ports: [
            { targetPort: 80, publishedPort: 80 },
            { targetPort: 81, publishedPort: 80, publishMode: 1 },
          ],
        },
      },
      "ports[1]: duplicate published ports provided: 80/tcp",
    ],
    [
      "a port on all addresses and on one",
      {
        endpoint: {
          ports: [
            { targetPort: 80, publishedPort: 80, hostIp: "192.0.2.1" },
            { targetPort: 80, publishedPort: 80, hostIp: "192.0.2.2" },
            { targetPort: 80, publishedPort: 80, hostIp: "0.0.0.0" },
          ],
        },
      },
      "ports[2]: duplicate published ports provided: 80/tcp",
    ],
    [
      "host address",
      { endpoint: { ports: [{ targetPort: 80, hostIp: "web" }] } },
      'ports[0].host_ip: invalid host ip "web": not an IP address',
    ],
    [
      "sctp on IPv6's loopback",
      { endpoint: { ports: [{ targetPort: 53, publishedPort: 53, protocol: 2, hostIp: "::1" }] } },
      "ports[0].host_ip: sctp cannot be published on ::1",
    ],
    [
      "a zone in a host address",
      { endpoint: { ports: [{ targetPort: 80, hostIp: "fe80::1%eth0" }] } },
      'ports[0].host_ip: invalid host ip "fe80::1%eth0": not an IP address',
    ],
    [
      "sctp on loopback",
      { endpoint: { ports: [{ targetPort: 53, publishedPort: 53, protocol: 2, hostIp: "127.0.0.1" }] } },
      "ports[0].host_ip: sctp cannot be published on 127.0.0.1",
    ],
    [
      "health",
      container({ healthcheck: { interval: toDuration(0.001) } }),
      "healthcheck.interval: cannot be less than 1ms",
    ],
    [
      "health test",
      container({ healthcheck: { test: ["HTTP", "/"] } }),
      'healthcheck.test: must begin with NONE, CMD or CMD-SHELL, not "HTTP"',
    ],
    ["env", container({ env: ["=x"] }), 'env[0]: invalid environment variable: "=x"'],
    [
      "env template",
      container({ env: ["A={{.Nope}}"] }),
      "env[0]: template: can't evaluate field Nope (fields: Service, Node, Task)",
    ],
    ["NUL", container({ args: ["a\0b"] }), "args[0]: must not contain NUL"],
    ["dir", container({ dir: "tmp" }), 'working_dir: "tmp" must be an absolute path'],
    ["signal", container({ stopSignal: "SIGNOPE" }), 'stop_signal: Invalid signal: "SIGNOPE"'],
    ["grace", container({ stopGracePeriod: toDuration(-1) }), "stop_grace_period: cannot be negative"],
    ["hostname", container({ hostname: "a_b" }), 'hostname: invalid hostname format: "a_b"'],
    [
      "target",
      container({ mounts: [{ type: 2, target: "tmp" }] }),
      'mounts[0].target: invalid mount target "tmp", must be an absolute path',
    ],
    ["root", container({ mounts: [{ type: 2, target: "//" }] }), "mounts[0].target: invalid mount target '/'"],
    [
      "bind",
      container({ mounts: [{ type: 1, source: "etc", target: "/a" }] }),
      'mounts[0].source: invalid bind mount source "etc", must be an absolute path',
    ],
    [
      "same target",
      container({
        mounts: [
          { type: 2, target: "/a" },
          { type: 2, target: "/a" },
        ],
      }),
      'mounts[1].target: duplicate mount point: "/a"',
    ],
    [
      "volume driver",
      container({ mounts: [{ source: "a", target: "/a", volumeDriver: "nfs" }] }),
      'mounts[0].volume-driver: "nfs": volume drivers are not supported, only local is',
    ],
    [
      "volume option",
      container({ mounts: [{ source: "a", target: "/a", volumeOptions: { type: "nfs", o: "addr=10.0.0.1" } }] }),
      'mounts[0].volume-opt: missing required option: "device"',
    ],
    [
      "subpath of an anonymous volume",
      container({ mounts: [{ target: "/a", volumeSubpath: "b" }] }),
      "mounts[0].volume-subpath: needs a volume with a name",
    ],
    ["capability", container({ capAdd: ["FLY"] }), 'cap_add[0]: unknown capability "FLY"'],
    [
      "sysctl",
      container({ sysctls: { "kernel.panic": "1" } }),
      'sysctls: "kernel.panic" is not a setting of a container\'s own namespaces',
    ],
    [
      "ulimit",
      container({ ulimits: [{ name: "nofile", soft: 2n, hard: 1n }] }),
      "ulimits[0]: ulimit soft limit must be less than or equal to hard limit: 2 > 1",
    ],
    ["oom", container({ oomScoreAdj: 2000 }), "oom_score_adj: must be from -1000 to 1000"],
    ["host", container({ hosts: ["1.2.3 db"] }), 'hosts[0]: invalid IP address or name in add-host: "1.2.3 db"'],
    ["dns", container({ dns: { nameservers: ["x"] } }), 'dns[0]: "x" is not an ip address'],
    ["label", { labels: { "a\u001b": "x" } }, 'labels."a\\u001b": must not contain control characters'],
    [
      "host network",
      { ...task({ networks: [{ target: "host" }] }), endpoint: { ports: [{ targetPort: 80 }] } },
      "ports: cannot be published with network host",
    ],
  ])("%s", (_, init, problem) => {
    expect(problems(init)).toEqual([problem]);
  });
});

test("all at once, and not without end", () => {
  expect(problems({ name: "a b", ...container({ image: "A", env: ["="], dir: "x" }) })).toHaveLength(4);
  expect(problems(container({ env: Array.from({ length: 4000 }, () => "=") })).length).toBe(50);
  expect(problems({ labels: { a: "x".repeat(300_000) } })[0]).toMatch(/^spec: is 300\d+ bytes long; at most 262144$/);
});

test("node specs", () => {
  expect(validateNodeSpec(create(NodeSpecSchema, { labels: { a: "b" } }))).toEqual([]);
  const bad = create(NodeSpecSchema, { labels: { "": "b" }, availability: 9 as 0, desiredRole: 7 as 0 });
  expect(validateNodeSpec(bad).map(({ field, problem }) => `${field}: ${problem}`)).toEqual([
    "labels: a label needs a name",
    "role: unknown value 7",
    "availability: unknown value 9",
  ]);
});
