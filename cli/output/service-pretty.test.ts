// Goal: `inspect --pretty` shows every field that Docker's does, in Docker's order. Method: one service that has them all.
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ServiceViewSchema } from "../../proto/gen/swarm/v1/control_pb.js";
import { RestartPolicy_Condition } from "../../proto/gen/swarm/v1/types_pb.js";
import { servicePretty } from "./service-pretty.ts";

const full = create(ServiceViewSchema, {
  service: {
    id: "s1",
    name: "web",
    stopped: true,
    ports: [{ publishedPort: 8080, targetPort: 80 }],
    vips: [
      { networkId: "n1", addresses: ["10.0.1.2/24", "fd00::2/64"] },
      { networkId: "n2", addresses: ["10.0.2.2/24"] },
    ],
    updateStatus: { message: "update completed", startedAt: { seconds: 40n }, completedAt: { seconds: 50n } },
  },
  spec: {
    name: "web",
    labels: { tier: "front" },
    mode: { mode: { case: "replicated", value: { replicas: 3n } } },
    update: { parallelism: 2n, delay: { seconds: 5n } },
    rollback: {},
    endpoint: { affinity: 1 },
    task: {
      restart: { condition: RestartPolicy_Condition.ANY },
      placement: { constraints: ["node.role==worker"], preferences: [{ spread: "node.labels.zone" }], maxReplicas: 2n },
      container: {
        image: "demo/web:1",
        args: ["serve"],
        env: ["A=1"],
        dir: "/srv",
        user: "www",
        init: true,
        capAdd: ["NET_ADMIN"],
        capDrop: ["CHOWN"],
        sysctls: { "net.core.somaxconn": "512" },
        ulimits: [{ name: "nofile", soft: 10n, hard: 20n }],
        mounts: [
          { source: "data", target: "/data" },
          { source: "more", target: "/more", readOnly: true },
        ],
        configs: [{ configName: "c1", file: { name: "/etc/c" } }],
        secrets: [{ secretName: "s1" }],
        healthcheck: { test: ["CMD", "true"], interval: { seconds: 3n }, retries: 2 },
        stopGracePeriod: { seconds: 20n },
      },
      logDriver: { name: "json-file", options: { "max-size": "1m" } },
      networks: [{ target: "front" }, { target: "bridge" }, { target: "back" }],
      resources: {
        limits: { nanoCpus: 500_000_000n, memoryBytes: 1024n ** 2n, pids: 9n },
        reservations: { nanoCpus: 100_000_000n },
      },
    },
  },
  desiredTasks: 0n,
});

test("every section", () => {
  expect(servicePretty(full, 60_000)).toMatchInlineSnapshot(`
    "ID:		s1
    Name:		web
    Labels:
     tier=front
    Service Mode:	Replicated
     Replicas:	3
    Stopped:	true
    UpdateStatus:
     State:		unknown
     Started:	20 seconds ago
     Completed:	10 seconds ago
     Message:	update completed
    Placement:
     Constraints:	node.role==worker
     Preferences:	spread=node.labels.zone
     Max Replicas Per Node:	2
    UpdateConfig:
     Parallelism:	2
     Delay:		5s
     On failure:	pause
     Monitoring Period:	5s
     Max failure ratio:	0
     Update order:	     stop-first
    RollbackConfig:
     Parallelism:	0
     On failure:	pause
     Monitoring Period:	5s
     Max failure ratio:	0
     Rollback order:	     stop-first
    ContainerSpec:
     Image:		demo/web:1
     Args:		serve
     Env:		A=1
     Dir:		/srv
     Init:		true
     User:	www
     Stop grace period:	20s
     Capabilities:
      Add:	NET_ADMIN
      Drop:	CHOWN
     SysCtls:
      net.core.somaxconn:	512
     Ulimits:
      nofile:	10:20
     Mounts:
      Target:	/data
       Source:	data
       ReadOnly:	false
       Type:	volume
      Target:	/more
       Source:	more
       ReadOnly:	true
       Type:	volume
    Configs:
     Target:	/etc/c
      Source:	c1
    Secrets:
     Target:	s1
      Source:	s1
    Log Driver:
     Name:	json-file
     LogOpts:
      max-size:	1m
    Resources:
     Reservations:
      CPU:		0.1
     Limits:
      CPU:		0.5
      Memory:		1MiB
      PIDs:		9
    Networks:	front bridge back
    Endpoint Mode:	vip
    Session Affinity:	client-ip
    Virtual IPs:
     front:	10.0.1.2 fd00::2
     back:	10.0.2.2
    Ports:
     PublishedPort = 8080
      Protocol = tcp
      TargetPort = 80
      PublishMode = ingress
    Healthcheck:
     Interval:	3s
     Retries:	2
     Test:	CMD true
    "
  `);
});

test("of a service that has almost nothing, what Docker shows at least", () => {
  const bare = create(ServiceViewSchema, {
    service: { id: "s", name: "n" },
    spec: { name: "n", task: { container: { image: "i" } } },
  });
  expect(
    servicePretty(bare, 0)
      .split("\n")
      .map((line) => line.split(":")[0]),
  ).toEqual([
    ...["ID", "Name", "Service Mode", " Replicas", "Placement"],
    ...["UpdateConfig", " Parallelism", " On failure", " Monitoring Period", " Max failure ratio", " Update order"],
    ...["RollbackConfig", " Parallelism", " On failure", " Monitoring Period", " Max failure ratio", " Rollback order"],
    ...["ContainerSpec", " Image", " Stop grace period", "Endpoint Mode", ""],
  ]);
});

test("what docker run has and Docker's services do not", () => {
  const container = {
    image: "x",
    tty: true,
    openStdin: true,
    privileged: true,
    security: { seccomp: "{}", noNewPrivileges: false, systemPathsUnconfined: true },
    devices: [{ hostPath: "/dev/snd", containerPath: "/dev/sound", permissions: "rw" }, { hostPath: "/dev/fuse" }],
    deviceCgroupRules: ["c 81:* rmw"],
    shmSizeBytes: 1n << 30n,
    pidMode: "host",
    pullPolicy: 1,
  };
  const limits = { memorySwapBytes: -1n, memorySwappiness: 0, cpusetCpus: "0-1", cpusetMems: "0", cpuShares: 512n };
  const view = create(ServiceViewSchema, {
    service: { ports: [{ publishedPort: 80, targetPort: 80, hostIp: "127.0.0.1" }] },
    spec: { task: { container, resources: { limits } } },
  });
  const shown = servicePretty(view, 0).split("\n");
  expect(shown.slice(shown.indexOf("ContainerSpec:"))).toMatchInlineSnapshot(`
    [
      "ContainerSpec:",
      " Image:		x",
      " TTY:	true",
      " Open stdin:	true",
      " Stop grace period:	10s",
      " Privileged:	true",
      " Security options:	seccomp=(profile), no-new-privileges=false, systempaths=unconfined",
      " Device:	/dev/snd:/dev/sound:rw",
      " Device:	/dev/fuse:/dev/fuse:rwm",
      " Device cgroup rule:	c 81:* rmw",
      " Shm size:	1GiB",
      " PID namespace:	host",
      " Pull policy:	always",
      "Resources:",
      " Limits:",
      "  Memory and swap:	unlimited",
      "  Swappiness:	0",
      "  CPU set:	0-1",
      "  Memory node set:	0",
      "  CPU shares:	512",
      "Endpoint Mode:	vip",
      "Ports:",
      " PublishedPort = 80",
      "  Protocol = tcp",
      "  TargetPort = 80",
      "  PublishMode = ingress",
      "  HostIP = 127.0.0.1",
      "",
    ]
  `);
});
