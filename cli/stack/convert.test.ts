/** A stack in Docker's own terms → names, labels and specs as `docker stack deploy` makes them. */
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ServiceSpecSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { converted, load } from "./test-files.ts";

const STACK = `
services:
  web:
    image: demo/web:1
    command: serve --port 80
    entrypoint: ["/entry"]
    environment: {B: 2, A: 1, NONE: }
    labels: {l: c}
    hostname: web-{{.Task.Slot}}
    extra_hosts: ["db:10.0.0.1", "v6:::1"]
    dns: 1.1.1.1
    healthcheck: {test: curl x, interval: 30s, retries: 2}
    stop_grace_period: 20s
    stop_signal: SIGQUIT
    restart: on-failure:3
    init: true
    read_only: true
    user: "1:2"
    working_dir: /srv
    cap_drop: [ALL]
    sysctls: {net.core.somaxconn: 100}
    ulimits: {nofile: {soft: 10, hard: 20}, nproc: 5}
    oom_score_adj: 100
    logging: {driver: json-file, options: {max-size: 1m}}
    ports: ["8080:80", "53:53/udp"]
    volumes: ["data:/data", "shared:/shared:ro", "./conf:/conf:ro", {type: tmpfs, target: /tmp, tmpfs: {size: 1048576}}]
    secrets: [pw, {source: key, target: /etc/key, uid: "5", mode: 0400}]
    configs: [{source: conf, target: /etc/app.conf}]
    depends_on: [db]
    deploy:
      labels: {l: s}
      replicas: 2
      update_config: {parallelism: 2, delay: 1s, order: start-first, failure_action: rollback, max_failure_ratio: 0.5}
      rollback_config: {parallelism: 0}
      resources: {limits: {cpus: "0.5", memory: 64M, pids: 10}, reservations: {cpus: "0.1", memory: 32M}}
      placement: {constraints: [node.role == worker], preferences: [{spread: node.labels.zone}], max_replicas_per_node: 1}
  db:
    image: demo/db:1
  agent:
    image: demo/agent:1
    deploy: {mode: global, restart_policy: {condition: on-failure, delay: 1s, max_attempts: 4, window: 10s}}
volumes:
  data: {labels: {a: b}}
  shared: {external: true, name: real}
secrets:
  pw: {file: pw.txt, labels: {x: y}}
  key: {external: true}
configs:
  conf: {file: app.conf, name: conf-v2, template_driver: golang}
networks:
  default:
`;

test("everything of a stack", () => {
  const loaded = load({
    "stack.yml": STACK.replace("data: {labels: {a: b}}", "data:"),
    "pw.txt": "pw",
    "app.conf": "conf",
  });
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems, null, 1));
  const { services, secrets, configs, volumes, externalSecrets, externalVolumes } = loaded.spec;
  expect([...loaded.unsetReplicas]).toEqual(["shop_db"]);
  const namespace = { "com.docker.stack.namespace": "shop" };
  expect(volumes).toMatchObject([{ name: "shop_data", labels: namespace }]);
  expect(externalVolumes).toEqual(["real"]);
  expect(externalSecrets).toEqual(["key"]);
  expect(secrets).toMatchObject([
    { name: "shop_pw", labels: { x: "y", ...namespace }, data: new TextEncoder().encode("pw") },
  ]);
  expect(configs).toMatchObject([{ name: "conf-v2", labels: namespace, templateDriver: "golang" }]);
  const [web, db, agent] = services;
  expect(web).toEqual(
    create(ServiceSpecSchema, {
      name: "shop_web",
      labels: { l: "s", ...namespace, "com.docker.stack.image": "demo/web:1" },
      mode: { mode: { case: "replicated", value: { replicas: 2n } } },
      dependsOn: [{ service: "shop_db" }],
      update: { parallelism: 2n, delay: { seconds: 1n }, order: 1, failureAction: 2, maxFailureRatio: 0.5 },
      rollback: { parallelism: 0n },
      endpoint: {
        ports: [
          { targetPort: 80, publishedPort: 8080 },
          { targetPort: 53, publishedPort: 53, protocol: 1 },
        ],
      },
      task: {
        resources: {
          limits: { nanoCpus: 500_000_000n, memoryBytes: 67108864n, pids: 10n },
          reservations: { nanoCpus: 100_000_000n, memoryBytes: 33554432n },
        },
        restart: { condition: 1, maxAttempts: 3n },
        placement: {
          constraints: ["node.role == worker"],
          preferences: [{ spread: "node.labels.zone" }],
          maxReplicas: 1n,
        },
        logDriver: { name: "json-file", options: { "max-size": "1m" } },
        networks: [{ target: "shop_default", aliases: ["web"] }],
        container: {
          image: "demo/web:1",
          command: ["/entry"],
          args: ["serve", "--port", "80"],
          env: ["A=1", "B=2"],
          dir: "/srv",
          user: "1:2",
          hostname: "web-{{.Task.Slot}}",
          labels: { l: "c", ...namespace },
          readOnly: true,
          mounts: [
            { type: 0, source: "shop_data", target: "/data" },
            { type: 0, source: "real", target: "/shared", readOnly: true },
            { type: 1, source: "/app/conf", target: "/conf", readOnly: true },
            { type: 2, target: "/tmp", tmpfsSizeBytes: 1048576n },
          ],
          stopSignal: "SIGQUIT",
          stopGracePeriod: { seconds: 20n },
          healthcheck: { test: ["CMD-SHELL", "curl x"], interval: { seconds: 30n }, retries: 2 },
          hosts: ["10.0.0.1 db", "::1 v6"],
          dns: { nameservers: ["1.1.1.1"] },
          init: true,
          capDrop: ["ALL"],
          sysctls: { "net.core.somaxconn": "100" },
          ulimits: [
            { name: "nofile", soft: 10n, hard: 20n },
            { name: "nproc", soft: 5n, hard: 5n },
          ],
          oomScoreAdj: 100,
          secrets: [
            { secretName: "shop_pw", file: { name: "pw", uid: "0", gid: "0" } },
            { secretName: "key", file: { name: "/etc/key", uid: "5", gid: "0", mode: 0o400 } },
          ],
          configs: [{ configName: "conf-v2", file: { name: "/etc/app.conf", uid: "0", gid: "0" } }],
        },
      },
    }),
  );
  expect(db?.task?.restart).toBeUndefined();
  expect(agent?.mode?.mode.case).toBe("global");
  expect(agent?.task?.restart).toMatchObject({
    condition: 1,
    delay: { seconds: 1n },
    maxAttempts: 4n,
    window: { seconds: 10n },
  });
});

test.each([
  ["tty: true", { tty: true, openStdin: false }],
  ["stdin_open: true", { tty: false, openStdin: true }],
  ["stdin_open: true, tty: true", { tty: true, openStdin: true }],
  ["stdin_open: false", { tty: false, openStdin: false }],
])("a terminal and open standard input: %s", (text, expected) => {
  const loaded = load(`services: {web: {image: x, ${text}}}\n`);
  expect(loaded.ok && loaded.spec.services[0]?.task?.container).toMatchObject(expected);
});

test.each(["", "a/b", "-x", "x".repeat(64)])("the name %j is refused", (name) => {
  expect(load("services: {web: {image: x}}\n", { name } as object)).toMatchObject({ ok: false });
});

const NETWORKS = `
services:
  web:
    image: demo/web:1
    networks: {back: {priority: 5, aliases: [www, web], ipv4_address: 10.9.0.7}, front: , shared: {aliases: [shop]}}
    deploy: {endpoint_mode: dnsrr}
  db: {image: "demo/db:1", networks: [back], x-session-affinity: client-ip}
  lonely: {image: "demo/db:1", network_mode: none}
  near: {image: "demo/db:1", networks: [node]}
networks:
  front: {attachable: true, driver: overlay, labels: {a: b}, enable_ipv6: true}
  back:
    name: shop-back
    internal: true
    driver_opts: {encrypted: "", com.docker.network.driver.mtu: 1400}
    ipam: {driver: default, config: [{subnet: 10.9.0.0/24, gateway: 10.9.0.254, ip_range: 10.9.0.128/25, aux_addresses: {printer: 10.9.0.3}}]}
  shared: {external: true, name: real}
  node: {external: true, name: bridge}
  unused: {}
`;

test("networks: names, aliases, addresses, and only those that services are on", () => {
  const { networks, externalNetworks, services } = converted(NETWORKS);
  const labels = { "com.docker.stack.namespace": "shop" };
  expect(networks).toMatchObject([
    { name: "shop_front", attachable: true, ipv6: true, labels: { a: "b", ...labels }, ipam: [] },
    {
      name: "shop-back",
      internal: true,
      driverOpts: { encrypted: "", "com.docker.network.driver.mtu": "1400" },
      labels,
      ipam: [
        {
          subnet: "10.9.0.0/24",
          gateway: "10.9.0.254",
          ipRange: "10.9.0.128/25",
          auxAddresses: { printer: "10.9.0.3" },
        },
      ],
    },
  ]);
  expect(externalNetworks).toEqual(["real"]);
  const attachments = services.map(({ task, endpoint }) => [
    task?.networks.map(({ target, aliases, addresses }) => [target, ...aliases, ...addresses]),
    endpoint && [endpoint.mode, endpoint.affinity],
  ]);
  expect(attachments).toEqual([
    [
      [
        ["shop-back", "www", "web", "10.9.0.7"],
        ["real", "shop", "web"],
        ["shop_front", "web"],
      ],
      [1, 0],
    ],
    [[["shop-back", "db"]], [0, 1]],
    [[["none"]], undefined],
    [[["bridge"]], undefined],
  ]);
});

test("services that name no network are on the stack's own, which may be described or another", () => {
  const of = (networks: string) => converted(`services: {web: {image: "demo/web:1"}}\nnetworks: ${networks}\n`);
  expect(of("{}").networks).toMatchObject([{ name: "shop_default", internal: false }]);
  expect(of("{default: {internal: true}}").networks).toMatchObject([{ name: "shop_default", internal: true }]);
  const other = of("{default: {external: true, name: real}}");
  expect([other.networks, other.externalNetworks, other.services[0]?.task?.networks]).toMatchObject([
    [],
    ["real"],
    [{ target: "real", aliases: ["web"] }],
  ]);
});
