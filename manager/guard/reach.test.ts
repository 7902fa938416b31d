/**
 * Goal: a user with stack prefixes reaches what is of these stacks, and nothing leads further. Method: the decision itself on names
 * and specs; then every method of Control, each with a request that is within reach and those that are not.
 */

import { gzipSync } from "node:zlib";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Control, StackRequestSchema } from "../../proto/gen/swarm/v1/control_pb.js";
import {
  ConfigSchema,
  ManagerInfoSchema,
  NetworkSchema,
  SecretSchema,
  ServiceSchema,
  SpecVersionSchema,
  StackContentSchema,
  StackRevisionSchema,
  StackSchema,
  TaskSchema,
} from "../../proto/gen/swarm/v1/objects_pb.js";
import { Mount_Type, type ServiceSpec, ServiceSpecSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { NAMESPACE_LABEL } from "../stacks/stack-view.ts";
import { versionId } from "../store/kinds.ts";
import { ViewState } from "../store/view.ts";
import { isWithin, problemOf, type Reach, requireWithin } from "./reach.ts";
import { type MethodName, RULES } from "./rules.ts";
import { specSubjects, volumeSubjects } from "./subjects.ts";

const REACH: Reach = { user: "ci", prefixes: ["shop"] };
type Spec = MessageInitShape<typeof ServiceSpecSchema>;

describe("names", () => {
  test.each<[string, string, boolean]>([
    ["shop", "shop", true],
    ["shop", "shop_web", true],
    ["shop", "shop-staging", true],
    ["shop", "shop.web", true],
    ["shop", "shopping", false],
    ["shop", "shopping_web", false],
    ["shop", "Shop_web", false],
    ["shop", "my-shop_web", false],
    ["shop", "", false],
    ["shop_", "shop_web", true],
    ["shop_", "shop", false],
    ["review-", "review-17_web", true],
    ["review-", "reviewer", false],
  ])("prefix %s, name %s: %s", (prefix, name, within) => {
    expect(isWithin({ user: "ci", prefixes: ["other", prefix] }, name)).toBe(within);
  });

  test("what goes on from a name that is within by a word is within, and only by a word", () => {
    const word = fc.stringMatching(/^[a-z0-9]{1,8}$/);
    fc.assert(
      fc.property(word, word, fc.constantFrom("_", "-", "."), (prefix, rest, between) => {
        const reach = { user: "ci", prefixes: [prefix] };
        expect(isWithin(reach, `${prefix}${between}${rest}`)).toBe(true);
        expect(isWithin(reach, `${prefix}${rest}`)).toBe(false);
        expect(isWithin(reach, `${rest}${between}${prefix}`)).toBe(rest === prefix);
      }),
    );
  });

  test("a label that names another stack takes an object out of reach", () => {
    const object = { kind: "service", name: "shop_web" } as const;
    expect(problemOf(REACH, { ...object, stack: "shop-2" })).toBeUndefined();
    expect(problemOf(REACH, { ...object, stack: "bank" })).toBe('service "shop_web" is of stack "bank"');
  });
});

/** Two stacks of the same kind, and a service that an administrator gave more than a task's own. */
const SHOP = {
  service: "1",
  task: "2",
  secret: "3",
  config: "4",
  stack: "5",
  agent: "6",
  agentTask: "7",
  cert: "8",
  network: "9",
};
const BANK = { service: "b", task: "c", secret: "d", config: "e", stack: "f", proxy: "g", network: "h" };
const id = (digit: string) => digit.repeat(25);

function world(): ViewState {
  const view = new ViewState();
  const service = (key: string, spec: Spec, previous?: Spec) => {
    const versions = [previous, spec].filter((each) => each !== undefined);
    versions.forEach((each, index) => {
      const version = BigInt(index + 1);
      const made = { serviceId: id(key), version, spec: create(ServiceSpecSchema, each) };
      view.put("spec", versionId(id(key), version), create(SpecVersionSchema, made), 1);
    });
    const newest = { specVersion: BigInt(versions.length), previousSpecVersion: BigInt(versions.length - 1) };
    view.put("service", id(key), create(ServiceSchema, { id: id(key), name: spec.name ?? "", ...newest }), 1);
  };
  const task = (key: string, serviceKey: string) => {
    const made = { id: id(key), serviceId: id(serviceKey), specVersion: 1n, slot: 1 };
    view.put("task", id(key), create(TaskSchema, made), 1);
  };
  for (const [ids, name] of [
    [SHOP, "shop"],
    [BANK, "bank"],
  ] as const) {
    const labels = { [NAMESPACE_LABEL]: name };
    service(ids.service, { name: `${name}_web`, labels });
    task(ids.task, ids.service);
    view.put(
      "secret",
      id(ids.secret),
      create(SecretSchema, { id: id(ids.secret), name: `${name}_key`, spec: { labels } }),
      1,
    );
    view.put(
      "config",
      id(ids.config),
      create(ConfigSchema, { id: id(ids.config), name: `${name}_conf`, spec: { labels } }),
      1,
    );
    const network = { id: id(ids.network), name: `${name}_front`, spec: { labels } };
    view.put("network", network.id, create(NetworkSchema, network), 1);
    const stack = create(StackSchema, { id: id(ids.stack), name, revision: 2n });
    view.put("stack", id(ids.stack), stack, 1);
    for (const [revision, pid] of [
      [1n, "host"],
      [2n, ""],
    ] as const) {
      const content = create(StackContentSchema, {
        services: [{ name: `${name}_web`, task: { container: { pidMode: pid } } }],
      });
      const stored = { stackId: id(ids.stack), revision, content: gzipSync(toBinary(StackContentSchema, content)) };
      view.put("stackrevision", versionId(id(ids.stack), revision), create(StackRevisionSchema, stored), 1);
    }
  }
  service(
    SHOP.agent,
    { name: "shop_agent", task: { container: { image: "x" } } },
    { name: "shop_agent", task: { container: { privileged: true } } },
  );
  task(SHOP.agentTask, SHOP.agent);
  view.put("secret", id(SHOP.cert), create(SecretSchema, { id: id(SHOP.cert), name: "shop_cert" }), 1);
  service(BANK.proxy, { name: "proxy", task: { container: { secrets: [{ secretId: id(SHOP.cert) }] } } });
  view.put("manager", id("m"), create(ManagerInfoSchema, { id: id("m"), address: "10.0.0.1:2377" }), 1);
  return view;
}

const view = world();
const subjectsOf = (spec: Spec): ReturnType<typeof specSubjects> =>
  specSubjects(view, create(ServiceSpecSchema, { name: "shop_new", ...spec }));
const container = (fields: NonNullable<NonNullable<Spec["task"]>["container"]>): Spec => ({
  task: { container: fields },
});
const port = (publishedPort: number): Spec => ({ endpoint: { ports: [{ publishedPort, targetPort: 80 }] } });
const mount = (source: string, more = {}): Spec =>
  container({ mounts: [{ type: Mount_Type.VOLUME, source, target: "/d", ...more }] });

describe("specs", () => {
  test.each<[string, Spec]>([
    ["a plain one", { labels: { [NAMESPACE_LABEL]: "shop" } }],
    [
      "its own secrets, configs and volumes",
      container({
        secrets: [{ secretId: id(SHOP.secret) }, { secretName: "shop_new" }],
        configs: [{ configId: "shop_conf" }],
        mounts: [
          { type: Mount_Type.VOLUME, source: "shop_data", target: "/d" },
          { type: Mount_Type.VOLUME, source: "", target: "/a" },
          { type: Mount_Type.TMPFS, target: "/t" },
        ],
      }),
    ],
    ["a volume for each slot", mount("{{.Service.Name}}-{{.Task.Slot}}")],
    ["a volume in memory", mount("shop_tmp", { volumeOptions: { type: "tmpfs", device: "tmpfs", o: "size=1m" } })],
    ["Docker's own capabilities", container({ capAdd: ["NET_RAW", "cap_mknod"], capDrop: ["ALL"] })],
    ["ports as users of a host may have", port(8080)],
    ["any free port", port(0)],
    ["waits for its own", { dependsOn: [{ service: "shop_db" }] }],
    ["no network", { task: { networks: [{ target: "none" }] } }],
  ])("within: %s", (_, spec) => {
    expect(() => requireWithin(REACH, subjectsOf(spec))).not.toThrow();
  });

  test.each<[string, Spec, string]>([
    ["name", { name: "bank_new" }, 'service "bank_new" is not of these'],
    ["label", { labels: { [NAMESPACE_LABEL]: "bank" } }, 'service "shop_new" is of stack "bank"'],
    [
      "secret by id",
      container({ secrets: [{ secretId: id(BANK.secret), secretName: "shop_key" }] }),
      'secret "bank_key" is not',
    ],
    ["secret by name", container({ secrets: [{ secretId: "bank_key" }] }), 'secret "bank_key" is not of these'],
    ["secret that is not there", container({ secrets: [{ secretName: "nope" }] }), 'secret "nope" is not of these'],
    ["config", container({ configs: [{ configId: id(BANK.config) }] }), 'config "bank_conf" is not of these'],
    ["volume", mount("bank_data"), 'volume "bank_data" is not of these'],
    ["volume by a template", mount("shop{{.Task.Slot}}"), "is not of these"],
    ["volume by another template", mount("{{.Node.Hostname}}"), "is not of these"],
    [
      "directory of the host",
      container({ mounts: [{ type: Mount_Type.BIND, source: "/etc", target: "/e" }] }),
      "a bind mount of /etc would lead out",
    ],
    [
      "directory by a volume",
      mount("shop_etc", { volumeOptions: { type: "none", o: "bind", device: "/etc" } }),
      "options of volume shop_etc would",
    ],
    [
      "disk by a volume",
      mount("shop_disk", { volumeOptions: { type: "ext4", device: "/dev/sda1" } }),
      "options of volume shop_disk would",
    ],
    ["privileged", container({ privileged: true }), '"shop_new": privileged would lead out of its tasks'],
    ["device", container({ devices: [{ hostPath: "/dev/sda" }] }), "devices would"],
    ["device rule", container({ deviceCgroupRules: ["b *:* rwm"] }), "devices would"],
    ["pid", container({ pidMode: "host" }), "the host's PID namespace would"],
    ["ipc", container({ ipcMode: "host" }), "the host's IPC namespace would"],
    ["uts", container({ utsMode: "host" }), "the host's UTS namespace would"],
    ["network", { task: { networks: [{ target: "host" }] } }, "the host's network would"],
    ["seccomp", container({ security: { seccomp: "unconfined" } }), "another seccomp profile would"],
    ["apparmor", container({ security: { apparmor: "unconfined" } }), "another AppArmor profile would"],
    ["paths", container({ security: { systemPathsUnconfined: true } }), "open system paths would"],
    ["ALL", container({ capAdd: ["all"] }), "capability ALL would"],
    ["SYS_ADMIN", container({ capAdd: ["CAP_SYS_ADMIN"] }), "capability SYS_ADMIN would"],
    ["oom", container({ oomScoreAdj: -1 }), "a negative oom_score_adj would"],
    ["the host's port", port(22), "published port 22 would"],
    ["the managers' port", port(2377), "published port 2377 would"],
    ["their etcds'", port(2378), "published port 2378 would"],
    ["another's network", { task: { networks: [{ target: "bank_front" }] } }, 'network "bank_front" is not of these'],
    ["another's dependency", { dependsOn: [{ service: "bank_db" }] }, 'service "bank_db" is not of these'],
  ])("not within: %s", (_, spec, message) => {
    const call = () => requireWithin(REACH, subjectsOf(spec));
    expect(call).toThrow(
      expect.objectContaining({ code: "permission_denied", message: expect.stringContaining(message) }),
    );
  });

  test("a port that the service was given stays its own", () => {
    const own = world();
    const spec = create(ServiceSpecSchema, { name: "shop_web", ...port(80) });
    const given = create(SpecVersionSchema, { serviceId: id(SHOP.service), version: 1n, spec });
    expect(() => requireWithin(REACH, specSubjects(own, spec))).toThrow("published port 80");
    own.put("spec", versionId(id(SHOP.service), 1n), given, 2);
    expect(() => requireWithin(REACH, specSubjects(own, spec))).not.toThrow();
  });

  test("everything is told at once, of much only the first", () => {
    const many = Array.from({ length: 9 }, (_, index) => ({ service: `db${index}` }));
    expect(() => requireWithin(REACH, subjectsOf({ dependsOn: many }))).toThrow(
      /^user ci is confined to stacks that begin with shop: service "db0".*; service "db4" is not of these; and 4 more$/,
    );
  });
});

type Request<M extends MethodName> = MessageInitShape<(typeof Control)["method"][M]["input"]>;
interface Case<M extends MethodName> {
  /** Absent: the method is not for users with prefixes. */
  readonly within?: readonly Request<M>[];
  readonly outside: readonly Request<M>[];
}

const shopSpec = { name: "shop_new" };
const bankSpec = { name: "bank_new" };
const stack = (name: string, more: object = {}) => ({
  stack: { spec: { name, services: [{ name: `${name}_new` }], ...more } },
});
const outsideStacks = [
  stack("bank"),
  stack("shop", { services: [bankSpec] }),
  stack("shop", { services: [{ name: "shop_new", task: { container: { privileged: true } } }] }),
  stack("shop", { secrets: [{ name: "bank_key" }] }),
  stack("shop", { configs: [{ name: "bank_conf" }] }),
  stack("shop", { volumes: [{ name: "bank_data" }] }),
  stack("shop", { volumes: [{ name: "shop_data", options: { type: "none", o: "bind", device: "/" } }] }),
  stack("shop", { networks: [{ name: "bank_default" }] }),
  stack("shop", { networks: [{ name: "shop_default", ipam: [{ subnet: "8.8.8.0/24" }] }] }),
  stack("shop", { externalNetworks: ["bank_front"] }),
  stack("shop", { externalSecrets: ["bank_key"] }),
  stack("shop", { externalConfigs: ["bank_conf"] }),
  stack("shop", { externalVolumes: ["bank_data"] }),
];
const references = {
  within: [{}, { references: ["shop_web"] }, { references: [id(SHOP.service)] }, { references: [id("z")] }],
  outside: [{ references: ["shop_web", "bank_web"] }, { references: [id(BANK.service)] }, { references: ["nope"] }],
};
const byService = {
  within: [{ serviceId: id(SHOP.service) }, { serviceId: id("z") }],
  outside: [{ serviceId: id(BANK.service) }],
};
const inTask = (taskId: string) => ({ content: { case: "start", value: { taskId } } }) as const;
const ofTask = (taskId: string) => ({ content: { case: "from", value: { taskId } } }) as const;
const toTask = (taskId: string) => ({ content: { case: "to", value: { taskId } } }) as const;
const closed = { outside: [{}] };

const CASES: { readonly [M in MethodName]: Case<M> } = {
  getInfo: { within: [{}], outside: [] },
  getCa: { within: [{}], outside: [] },
  resolveImages: { within: [{}], outside: [] },
  getUnlockKey: closed,
  getJoinTokens: closed,
  rotateCa: closed,
  updateCluster: closed,
  createUser: closed,
  listUsers: closed,
  removeUser: closed,
  listAudit: closed,
  listNodes: closed,
  updateNode: closed,
  removeNode: closed,
  listImages: closed,
  removeImage: closed,
  missingBlobs: closed,
  putBlob: closed,
  putImage: closed,
  createService: { within: [{ spec: shopSpec }], outside: [{ spec: bankSpec }, { spec: { name: "" } }] },
  updateService: {
    within: [
      { serviceId: id(SHOP.service), spec: { name: "shop_web" } },
      { serviceId: id("z"), spec: shopSpec },
    ],
    outside: [
      { serviceId: id(BANK.service), spec: shopSpec },
      { serviceId: id(SHOP.service), spec: bankSpec },
      { serviceId: id(SHOP.service), spec: { name: "shop_web", labels: { [NAMESPACE_LABEL]: "bank" } } },
      // The version before was an administrator's.
      { serviceId: id(SHOP.agent), rollback: true },
    ],
  },
  removeService: byService,
  setServiceStopped: byService,
  listSpecVersions: byService,
  listServices: references,
  watchServices: {
    within: references.within.map((each) => ({ serviceIds: each.references ?? [] })),
    outside: references.outside.map((each) => ({ serviceIds: each.references })),
  },
  createSecret: {
    within: [{ name: "shop_new" }],
    outside: [{ name: "bank_new" }, { name: "shop_new", labels: { [NAMESPACE_LABEL]: "bank" } }],
  },
  updateSecret: {
    within: [
      { id: id(SHOP.secret), data: Buffer.of(1) },
      { id: id(SHOP.cert), labels: { labels: {} } },
      { id: id("z") },
    ],
    outside: [
      { id: id(BANK.secret) },
      { id: id(SHOP.secret), labels: { labels: { [NAMESPACE_LABEL]: "bank" } } },
      // A service of others would follow.
      { id: id(SHOP.cert), data: Buffer.of(1) },
    ],
  },
  removeSecret: { within: [{ id: id(SHOP.secret) }, { id: id("z") }], outside: [{ id: id(BANK.secret) }] },
  listSecrets: {
    within: [{}, { references: ["shop_key"] }],
    outside: [{ references: ["bank_key"] }, { references: [id(BANK.secret)] }],
  },
  createConfig: {
    within: [{ name: "shop_new" }],
    outside: [{ name: "bank_new" }, { name: "shop_new", labels: { [NAMESPACE_LABEL]: "bank" } }],
  },
  updateConfig: { within: [{ id: id(SHOP.config), data: Buffer.of(1) }], outside: [{ id: id(BANK.config) }] },
  removeConfig: { within: [{ id: id(SHOP.config) }], outside: [{ id: id(BANK.config) }] },
  listConfigs: {
    within: [{}, { references: ["shop_conf"] }],
    outside: [{ references: ["bank_conf"] }, { references: ["nope"] }],
  },
  planStack: { within: [{}, stack("shop"), stack("shop-2")], outside: outsideStacks },
  applyStack: { within: [{}, stack("shop"), stack("shop-2")], outside: outsideStacks },
  rollbackStack: {
    within: [{ name: "shop", to: 2n }],
    outside: [{ name: "bank", to: 2n }, { name: "shop" }, { name: "shop", to: 1n }],
  },
  removeStack: { within: [{ name: "shop" }, { name: "shop-2" }], outside: [{ name: "bank" }] },
  listStacks: { within: [{}], outside: [] },
  listStackRevisions: { within: [{ name: "shop" }], outside: [{ name: "bank" }] },
  createVolume: {
    within: [{ spec: { name: "shop_data" } }],
    outside: [
      {},
      { spec: { name: "bank_data" } },
      { spec: { name: "shop_data", options: { type: "none", o: "bind", device: "/" } } },
    ],
  },
  createNetwork: {
    within: [
      { spec: { name: "shop_front" } },
      { spec: { name: "shop_front", ipam: [{ subnet: "10.0.9.0/24" }, { subnet: "fd01::/64" }] } },
    ],
    outside: [
      { spec: { name: "bank_front" } },
      { spec: { name: "shop_front", labels: { [NAMESPACE_LABEL]: "bank" } } },
      // Hosts would send their packets to whatever lies there into the network.
      { spec: { name: "shop_front", ipam: [{ subnet: "93.184.216.0/24" }] } },
    ],
  },
  removeNetwork: {
    within: [{ networkId: id(SHOP.network) }, { networkId: id("z") }],
    outside: [{ networkId: id(BANK.network) }],
  },
  listNetworks: {
    within: [{}, { references: ["shop_front", "ingress"] }],
    outside: [{ references: ["bank_front"] }, { references: [id(BANK.network)] }, { references: ["nope"] }],
  },
  checkNetwork: { within: [], outside: [{}, { networkId: id(SHOP.network) }] },
  removeVolume: { within: [{ name: "shop_data" }], outside: [{ name: "bank_data" }] },
  listVolumes: { within: [{}, { names: ["shop_data"] }], outside: [{ names: ["shop_data", "bank_data"] }] },
  listTasks: {
    within: [{}, { references: ["shop_web.1"] }, { serviceIds: ["shop_web"] }],
    outside: [
      { references: ["bank_web.1"] },
      { references: [id(BANK.task)] },
      { serviceIds: ["bank_web"] },
      { nodeIds: ["node-1"] },
    ],
  },
  serviceLogs: {
    within: [{}, { selector: { serviceIds: ["shop_web"], taskIds: [id(SHOP.task)] } }],
    outside: [{ selector: { serviceIds: ["bank_web"] } }, { selector: { taskIds: [id(BANK.task)] } }],
  },
  watchTaskStats: {
    within: [{}, { services: ["shop_web"], tasks: [id(SHOP.task)] }],
    outside: [{ services: ["bank_web"] }, { tasks: ["bank_web.1"] }, { nodes: ["node-1"] }],
  },
  exec: {
    within: [inTask(id(SHOP.task)), inTask(id("z"))],
    outside: [inTask(id(BANK.task)), inTask(id(SHOP.agentTask))],
  },
  copyFiles: {
    within: [ofTask(id(SHOP.task)), toTask(id(SHOP.task))],
    outside: [ofTask(id(BANK.task)), toTask(id(BANK.task)), toTask(id(SHOP.agentTask))],
  },
};

describe("every method of Control", () => {
  test.each(Control.methods)("$name", ({ localName, input }) => {
    const { about } = RULES[localName as MethodName];
    const { within = [], outside } = CASES[localName as MethodName];
    const call = (request: Record<string, unknown>) => () =>
      requireWithin(REACH, about(view, create(input, request) as never));
    const shown = (request: unknown) =>
      JSON.stringify(request, (_, value) => (typeof value === "bigint" ? `${value}` : value));
    expect(within.length + outside.length).toBeGreaterThan(0);
    for (const request of within) expect(call(request), shown(request)).not.toThrow();
    for (const request of outside) {
      expect(call(request), shown(request)).toThrow(expect.objectContaining({ code: "permission_denied" }));
    }
  });

  test("a stack's label on what is not of its name takes the stack's removal and deploys out of reach", () => {
    const own = world();
    const spec: ServiceSpec = create(ServiceSpecSchema, { name: "intruder", labels: { [NAMESPACE_LABEL]: "shop" } });
    own.put("service", id("i"), create(ServiceSchema, { id: id("i"), name: "intruder", specVersion: 1n }), 2);
    own.put("spec", versionId(id("i"), 1n), create(SpecVersionSchema, { serviceId: id("i"), version: 1n, spec }), 2);
    const apply = { stack: create(StackRequestSchema, { spec: { name: "shop" } }) };
    for (const subjects of [
      RULES.removeStack.about(own, create(Control.method.removeStack.input, { name: "shop" })),
      RULES.applyStack.about(own, create(Control.method.applyStack.input, apply)),
    ]) {
      expect(() => requireWithin(REACH, subjects)).toThrow('service "intruder" is not of these');
    }
  });

  test("volumes: options that lead elsewhere", () => {
    const volume = (options: Record<string, string>) => () =>
      requireWithin(
        REACH,
        volumeSubjects({ $typeName: "swarm.v1.VolumeSpec", name: "shop_x", labels: {}, driver: "", options }),
      );
    expect(volume({})).not.toThrow();
    expect(volume({ type: "tmpfs", device: "tmpfs" })).not.toThrow();
    for (const options of [
      { type: "nfs", device: ":/", o: "addr=10.0.0.9" },
      { type: "none", o: "bind", device: "/" },
    ]) {
      expect(volume(options)).toThrow("volumes with options that lead elsewhere");
    }
  });
});
