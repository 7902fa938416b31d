import { create, toJson } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { type ServiceSpec, ServiceSpecSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { parseArguments } from "./parse.ts";
import { createSpec } from "./service-create.ts";
import { CREATE_FLAGS, UPDATE_FLAGS } from "./service-flags.ts";
import { updatedSpec } from "./service-update.ts";
import { parseShellWords } from "./shell-words.ts";

const context = {
  environment: { INHERITED: "yes" },
  readFile: (path: string) => (path === "vars" ? "# note\n\nFILE=1\nINHERITED\nABSENT\nA=file\n" : "BAD NAME=1"),
};

function created(...argv: string[]): ServiceSpec {
  const { flags, words } = parseArguments(argv, CREATE_FLAGS, { interspersed: false });
  return createSpec(flags, words, context);
}

function updated(spec: ServiceSpec, ...argv: string[]): ServiceSpec {
  return updatedSpec(spec, parseArguments(argv, UPDATE_FLAGS, { interspersed: true }).flags, context);
}

function json(spec: ServiceSpec): unknown {
  return toJson(ServiceSpecSchema, spec);
}

function problem(work: () => unknown): string {
  try {
    return JSON.stringify(work(), (_, value) => (typeof value === "bigint" ? String(value) : value));
  } catch (reason) {
    return reason instanceof Error ? reason.message : "";
  }
}

describe("create", () => {
  test("the shortest spec", () => {
    expect(json(created("nginx"))).toMatchInlineSnapshot(`
      {
        "mode": {
          "replicated": {
            "replicas": "1",
          },
        },
        "task": {
          "container": {
            "image": "nginx",
          },
        },
      }
    `);
  });

  test("what stands after the image is the container's", () => {
    expect(created("-e", "A=1", "nginx", "sh", "-c", "--replicas").task?.container?.args).toEqual([
      "sh",
      "-c",
      "--replicas",
    ]);
  });

  test("environment: files, then flags; bare keys inherit", () => {
    const spec = created(
      "--isolation",
      "default",
      "--env-file",
      "vars",
      "-e",
      "A=flag",
      "-e",
      "INHERITED",
      "-e",
      "UNSET",
      "x",
    );
    expect(spec.task?.container?.env).toEqual(["FILE=1", "INHERITED=yes", "A=flag", "UNSET"]);
  });

  test("an update policy that is given in part keeps Docker's parallelism", () => {
    expect(created("--update-delay", "1m30s", "x").update).toMatchObject({ parallelism: 1n, delay: { seconds: 90n } });
    expect(created("--update-parallelism", "0", "x").update?.parallelism).toBe(0n);
  });

  test("everything at once", () => {
    const spec = created(
      ...["--name", "web", "--mode", "global", "--limit-cpu", ".5", "--limit-memory", "64M", "--reserve-memory", "32M"],
      ...[
        "--restart-condition",
        "on-failure",
        "--restart-max-attempts",
        "3",
        "--stop-grace-period",
        "20s",
        "-p",
        "8080:80",
      ],
      ...["--health-cmd", "curl -f x", "--health-retries", "2", "--constraint", "node.role==worker", "--mount"],
      ...["type=bind,src=/etc,dst=/e,ro", "--host", "db:10.0.0.1", "--dns", "1.1.1.1", "--ulimit", "nofile=10:20"],
      ...[
        "--entrypoint",
        "sh -c 'a b'",
        "--placement-pref",
        "spread=node.labels.zone",
        "--cap-drop",
        "ALL",
        "--init",
        "x",
      ],
    );
    expect(json(spec)).toMatchSnapshot();
  });

  test.each([
    [
      ["--replicas", "three", "x"],
      'invalid argument "three" for --replicas: invalid value "three": must be an integer',
    ],
    [
      ["--replicas", "-1", "x"],
      'invalid argument "-1" for --replicas: invalid value "-1": must be from 0 to 9007199254740991',
    ],
    [
      ["--replicas", "2", "--mode", "global", "x"],
      "--replicas can only be used with mode replicated or replicated-job",
    ],
    [["--mode", "sideways", "x"], 'invalid argument "sideways" for --mode: replicated or global'],
    [["--limit-memory", "50XB", "x"], 'invalid argument "50XB" for --limit-memory: invalid suffix: "XB"'],
    [
      ["--update-order", "random", "x"],
      'invalid argument "random" for --update-order: must be one of stop-first, start-first',
    ],
    [
      ["--rollback-failure-action", "rollback", "x"],
      'invalid argument "rollback" for --rollback-failure-action: must be one of pause, continue',
    ],
    [
      ["--update-max-failure-ratio", "1.5", "x"],
      'invalid argument "1.5" for --update-max-failure-ratio: invalid value "1.5": must be from 0 to 1',
    ],
    [
      ["--stop-grace-period", "10", "x"],
      'invalid argument "10" for --stop-grace-period: time: missing unit in duration "10"',
    ],
    [["--no-healthcheck", "--health-cmd", "x", "x"], "--no-healthcheck conflicts with --health-* options"],
    [
      ["--secret", "source=a,mode=9", "x"],
      `invalid argument "source=a,mode=9" for --secret: invalid mode specified: 9 is not an octal number`,
    ],
    [["--config", "target=/a", "x"], `invalid argument "target=/a" for --config: source is required`],
    [["--isolation", "hyperv", "x"], "--isolation: it is for Windows containers"],
    [["--generic-resource", "gpu=1", "x"], "--generic-resource: generic resources are not supported yet"],
    [
      ["--mount", "type=npipe,dst=/a", "x"],
      `invalid argument "type=npipe,dst=/a" for --mount: mount type 'npipe' is not supported`,
    ],
    [
      ["--mount", "type=tmpfs,dst=/a,volume-nocopy", "x"],
      `invalid argument "type=tmpfs,dst=/a,volume-nocopy" for --mount: cannot mix 'volume-nocopy' with mount type 'tmpfs'`,
    ],
    [["--mount", "src=/a", "x"], 'invalid argument "src=/a" for --mount: target is required'],
    [["--env-file", "bad", "x"], '--env-file bad: line 1: variable "BAD NAME" contains whitespaces'],
    [["-p", "web:80:80", "x"], 'invalid argument "web:80:80" for --publish: invalid IP address: "web"'],
    [
      ["--device", "fuse", "x"],
      'invalid argument "fuse" for --device: "fuse": a device is written /dev/host[:/dev/container[:rwm]]',
    ],
    [["--device", "/dev/fuse:rx", "x"], 'invalid argument "/dev/fuse:rx" for --device: invalid device mode: "rx"'],
    [["--security-opt", "seccomp=bad", "x"], 'compacting json for seccomp profile "bad" failed: not JSON'],
    [["--security-opt", "selinux", "x"], 'invalid --security-opt: "selinux"'],
    [["--pid", "container:x", "x"], 'invalid argument "container:x" for --pid: must be one of host'],
    [["--pull", "often", "x"], 'invalid argument "often" for --pull: must be one of always, missing, never'],
    [
      ["--memory-swappiness", "101", "x"],
      'invalid argument "101" for --memory-swappiness: invalid value "101": must be from -1 to 100',
    ],
    [["--host", "db", "x"], 'invalid argument "db" for --host: bad format for add-host: "db" (name:ip)'],
    [["--entrypoint", "sh 'x", "x"], `invalid argument "sh 'x" for --entrypoint: unclosed quote in "sh 'x"`],
  ])("%j", (argv, expected) => {
    expect(problem(() => created(...argv))).toBe(expected);
  });
});

test("what docker run says of isolation", () => {
  const spec = created(
    ...["--privileged", "--device", "/dev/fuse", "--device", "/dev/snd:/dev/sound:rw", "--device", "/dev/sda:r"],
    ...["--device-cgroup-rule", "c 81:* rmw", "--shm-size", "1g", "--pid", "host", "--ipc", "host", "--uts", "host"],
    ...["--security-opt", "no-new-privileges=false", "--security-opt", "seccomp=unconfined", "--pull", "always"],
    ...["--security-opt", "apparmor=unconfined", "--security-opt", "systempaths=unconfined"],
    ...["--limit-memory", "1g", "--memory-swap", "-1", "--memory-swappiness", "0", "--cpuset-cpus", "0-1"],
    ...["--cpuset-mems", "0", "--cpu-shares", "512", "-p", "127.0.0.1:8080:80", "x"],
  );
  const { task, endpoint } = json(spec) as { readonly task: object; readonly endpoint: object };
  expect({ ...task, endpoint }).toMatchInlineSnapshot(`
    {
      "container": {
        "deviceCgroupRules": [
          "c 81:* rmw",
        ],
        "devices": [
          {
            "hostPath": "/dev/fuse",
          },
          {
            "containerPath": "/dev/sound",
            "hostPath": "/dev/snd",
            "permissions": "rw",
          },
          {
            "hostPath": "/dev/sda",
            "permissions": "r",
          },
        ],
        "image": "x",
        "ipcMode": "host",
        "pidMode": "host",
        "privileged": true,
        "pullPolicy": "PULL_POLICY_ALWAYS",
        "security": {
          "apparmor": "unconfined",
          "noNewPrivileges": false,
          "seccomp": "unconfined",
          "systemPathsUnconfined": true,
        },
        "shmSizeBytes": "1073741824",
        "utsMode": "host",
      },
      "endpoint": {
        "ports": [
          {
            "hostIp": "127.0.0.1",
            "publishedPort": 8080,
            "targetPort": 80,
          },
        ],
      },
      "resources": {
        "limits": {
          "cpuShares": "512",
          "cpusetCpus": "0-1",
          "cpusetMems": "0",
          "memoryBytes": "1073741824",
          "memorySwapBytes": "-1",
          "memorySwappiness": 0,
        },
      },
    }
  `);
  const less = updated(
    spec,
    ...["--privileged=false", "--device-rm", "/dev/sound", "--device-add", "/dev/fuse:r", "--device-rm", "/dev/sda"],
    ...[
      "--device-cgroup-rule-rm",
      "c 81:* rmw",
      "--shm-size",
      "0",
      "--pid",
      "",
      "--ipc=",
      "--uts=",
      "--pull",
      "missing",
    ],
    ...["--security-opt", "RESET", "--security-opt", "no-new-privileges", "--memory-swap", "0"],
    ...[
      "--memory-swappiness",
      "-1",
      "--cpuset-cpus=",
      "--cpuset-mems=",
      "--cpu-shares",
      "0",
      "--limit-memory",
      "0",
      "web",
    ],
  );
  expect(json(less)).toMatchObject({
    task: {
      container: {
        image: "x",
        devices: [{ hostPath: "/dev/fuse", permissions: "r" }],
        security: { noNewPrivileges: true },
      },
      resources: { limits: {} },
    },
  });
  expect(less.task?.resources?.limits).toMatchObject({ memorySwapBytes: 0n, cpusetCpus: "", cpuShares: 0n });
  expect(updated(spec, "--security-opt", "seccomp=builtin", "web").task?.container?.security).toMatchObject({
    seccomp: "",
    apparmor: "unconfined",
    noNewPrivileges: false,
  });
});

describe("update", () => {
  const base = created(
    ...["-e", "A=1", "-e", "B=2", "-l", "x=1", "-p", "8080:80", "-p", "53:53/udp", "--constraint", "node.role==worker"],
    ...["--mount", "type=tmpfs,dst=/t", "--cap-add", "NET_ADMIN", "--name", "web", "demo/web:1", "serve"],
  );

  test("touches only what is named, and leaves the present spec alone", () => {
    const before = json(base);
    const spec = updated(
      base,
      ...["--image", "demo/web:2", "--env-add", "A=9", "--env-rm", "B", "--label-add", "y=2", "--publish-rm", "80"],
      ...[
        "--publish-add",
        "9090:90",
        "--constraint-rm",
        "node.role==worker",
        "--mount-rm",
        "/t",
        "--replicas",
        "4",
        "web",
      ],
    );
    expect(json(base)).toEqual(before);
    expect(spec.task?.container).toMatchObject({ image: "demo/web:2", env: ["A=9"], mounts: [], args: ["serve"] });
    expect(spec.labels).toEqual({ x: "1", y: "2" });
    expect(spec.endpoint?.ports.map(({ publishedPort, targetPort }) => [publishedPort, targetPort])).toEqual([
      [53, 53],
      [9090, 90],
    ]);
    expect(spec.task?.placement?.constraints).toEqual([]);
    expect(spec.mode?.mode.value).toMatchObject({ replicas: 4n });
  });

  test("a terminal is taken and given back", () => {
    expect(created("-t", "x").task?.container).toMatchObject({ tty: true, openStdin: false });
    const on = updated(base, "--tty", "web");
    expect(on.task?.container?.tty).toBe(true);
    expect(updated(on, "--tty=false", "web").task?.container?.tty).toBe(false);
  });

  test("no flags change nothing; --force raises the counter", () => {
    expect(json(updated(base, "web"))).toEqual(json(base));
    expect(updated(base, "--force", "web").task?.forceUpdate).toBe(1n);
  });

  test("capabilities move between the lists; RESET forgets", () => {
    expect(updated(base, "--cap-drop", "CAP_NET_ADMIN", "web").task?.container).toMatchObject({
      capAdd: [],
      capDrop: ["CAP_NET_ADMIN"],
    });
    expect(updated(base, "--cap-add", "RESET", "--cap-add", "CHOWN", "web").task?.container?.capAdd).toEqual(["CHOWN"]);
  });

  test("replicas of a global service are refused", () => {
    const global = create(ServiceSpecSchema, { mode: { mode: { case: "global", value: {} } } });
    expect(problem(() => updated(global, "--replicas", "2", "web"))).toMatch(/^--replicas can only be used/);
  });
});

test.each([
  [`a "b c" d\\ e 'f"g' # note`, ["a", "b c", "d e", 'f"g']],
  [`x="y z"`, ["x=y z"]],
  [`'' ""`, ["", ""]],
])("shell words of %s", (text, words) => {
  expect(parseShellWords(text)).toEqual({ ok: true, value: words });
});
