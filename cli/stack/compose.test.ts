/** The compose specification where Docker's stacks stop: what each part of it becomes, in `stack config` and in a spec. */
// biome-ignore-all lint/suspicious/noTemplateCurlyInString: they are the variables of stack files
import { describe, expect, test } from "vitest";
import { configOf, converted, load, problemsOf, service } from "./test-files.ts";

/** The services of a stack that loads. */
function servicesOf(given: Parameters<typeof load>[0]) {
  const loaded = load(given);
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems, null, 1));
  return loaded.spec.services;
}

function webOf(...lines: readonly string[]) {
  const [web] = converted(service(...lines)).services;
  if (web === undefined) throw new Error("no service");
  return web;
}

describe("variables", () => {
  const environment = { A: "a", EMPTY: "", N: "3" };
  test.each([
    ["$A ${A}", "a a"],
    ["${A:-d} ${EMPTY:-d} ${EMPTY-d} ${NO:-d} ${NO-d}", "a d  d d"],
    ["${A:+x} ${EMPTY:+x} ${EMPTY+x} ${NO:+x} ${NO+x}", "x  x  "],
    ["${NO:-${EMPTY:-z}} ${NO:-${A}} ${NO:-a-${NO:-b}-c}", "z a a-b-c"],
    ["${A:+${A}!}", "a!"],
    ["${A:?m-s-g} ${A?x}", "a a"],
    ["$$A $${A} $$$A", "$A ${A} $a"],
    ["${NO:-}|${NO-}", "|"],
    ["${NO:-a:b/c?d}", "a:b/c?d"],
    ["$A-text_$A", "a-text_a"],
    ["${NO:-${NO:?never asked}}", undefined],
    ["${A:-${NO:?never asked}}", "a"],
  ])("%s", (text, expected) => {
    const stack = service(`hostname: ${JSON.stringify(text)}`);
    if (expected === undefined) {
      expect(() => configOf(stack, { environment })).toThrow("required variable NO is missing a value: never asked");
      return;
    }
    const shown = configOf(stack, { environment }) as { services: { web: { hostname?: string } } };
    expect(shown.services.web.hostname ?? "").toBe(expected);
  });

  test.each(["$", "${", "${}", "${1}", "$1", "a $ b", "${A", "${A:-${B}", "${A;x}", "${ A }"])(
    "%s is refused",
    (text) => {
      expect(problemsOf(service(`hostname: ${JSON.stringify(text)}`))).toEqual([
        expect.stringMatching(/^stack\.yml:4:15: services\.web\.hostname: invalid interpolation format/),
      ]);
    },
  );

  test("are read as what their place wants", () => {
    const lines = [
      "deploy: {replicas: $N, resources: {limits: {pids: $N, cpus: $N}}}",
      "read_only: $ON",
      "tty: $OFF",
      "stop_grace_period: ${N}s",
    ];
    const shown = configOf(service(...lines), { environment: { N: "3", ON: "yes", OFF: "no" } });
    expect(shown).toEqual({
      services: {
        web: {
          deploy: { replicas: 3, resources: { limits: { cpus: "3", pids: 3 } } },
          image: "demo/web:1",
          read_only: true,
          stop_grace_period: "3s",
        },
      },
    });
  });

  test("of a wrong kind are refused with their value", () => {
    expect(problemsOf(service("deploy: {replicas: $SET}"))).toEqual([
      'stack.yml:4:24: services.web.deploy.replicas: must be an integer, not "set"',
    ]);
  });

  test("stay as they are written with --skip-interpolation", () => {
    const stack = service('ports: ["${P}:80"]', "deploy: {replicas: $N}", "hostname: $$x");
    expect(configOf(stack, { skipInterpolation: true })).toEqual({
      services: { web: { deploy: { replicas: "$N" }, hostname: "$$x", image: "demo/web:1", ports: ["${P}:80"] } },
    });
  });
});

describe("files of variables", () => {
  test(".env gives what the caller does not", () => {
    const env = '# c\nSET=file\nexport B = two\nQ="x $B\\n"\nR=\'$B\'\nS=${B:-z} # comment\n\nM="a\nb"\n';
    const stack = service('command: ["$SET", "$B", "$Q", "$R", "$S", "$M"]');
    expect(configOf({ "stack.yml": stack, ".env": env })).toMatchObject({
      services: { web: { command: ["set", "two", "x two\n", "$B", "two", "a\nb"] } },
    });
  });

  test(".env that cannot be read names the line", () => {
    expect(problemsOf({ "stack.yml": service(), ".env": "A=1\nB=2\n=x\n" })).toEqual([
      '/app/.env: line 3: no variable name in "=x"',
    ]);
  });

  test("env_file in its three forms", () => {
    const stack = service(
      "env_file: [a.env, {path: b.env}, {path: none.env, required: false}, {path: c.env, format: raw}]",
      "environment: {OWN: 1, A: }",
    );
    const files = { "stack.yml": stack, "a.env": 'A="1"\nB=x\n', "b.env": 'B="2" # two\n', "c.env": 'C="3"\n' };
    const [web] = servicesOf(files);
    expect(web?.task?.container?.env).toEqual(['A="1"', "B=2", 'C="3"', "OWN=1"]);
    expect(problemsOf({ "stack.yml": service("env_file: [{path: none.env}]") })).toEqual([
      "stack.yml:4:16: services.web.env_file[0]: none.env: no such file or directory",
    ]);
  });
});

describe("several services and files", () => {
  test("extends, here and elsewhere", () => {
    const files = {
      "stack.yml":
        "services:\n  base: {image: demo/base:1, environment: {A: 1, B: 1}, cap_add: [A]}\n  web: {extends: base, environment: {B: 2}}\n  far: {extends: {file: other/x.yml, service: deep}, image: demo/far:1}\n",
      "other/x.yml":
        "services:\n  deep: {extends: deeper, volumes: ['./rel:/r']}\n  deeper: {image: demo/deep:1, user: deep}\n",
    };
    expect(configOf(files)).toEqual({
      services: {
        base: { cap_add: ["A"], environment: { A: "1", B: "1" }, image: "demo/base:1" },
        far: { image: "demo/far:1", user: "deep", volumes: [{ type: "bind", source: "/app/other/rel", target: "/r" }] },
        web: { cap_add: ["A"], environment: { A: "1", B: "2" }, image: "demo/base:1" },
      },
    });
  });

  test("an env_file of another folder is printed so that it is found", () => {
    const files = {
      "stack.yml": "services: {web: {extends: {file: lib/x.yml, service: base}}}\n",
      "lib/x.yml": "services: {base: {image: x, env_file: [a.env, {path: a.env}]}}\n",
      "lib/a.env": "A=1\n",
    };
    expect(configOf(files)).toEqual({
      services: {
        web: { image: "x", environment: { A: "1" }, env_file: ["/app/lib/a.env", { path: "/app/lib/a.env" }] },
      },
    });
  });

  test("include, with its own folder and variables", () => {
    const files = {
      "stack.yml":
        "include: [lib/a.yml, {path: [lib/b.yml, lib/b2.yml], env_file: lib/own.env}]\nservices: {web: {image: demo/web:1}}\n",
      "lib/a.yml": "services: {a: {image: demo/a:1, volumes: ['./d:/d']}}\nvolumes: {v: {}}\n",
      "lib/b.yml": "services: {b: {image: 'demo/b:$TAG'}}\n",
      "lib/b2.yml": "services: {b: {user: u}}\n",
      "lib/.env": "TAG=implied\n",
      "lib/own.env": "TAG=9\n",
    };
    expect(configOf(files)).toEqual({
      services: {
        a: { image: "demo/a:1", volumes: [{ type: "bind", source: "/app/lib/d", target: "/d" }] },
        b: { image: "demo/b:9", user: "u" },
        web: { image: "demo/web:1" },
      },
      volumes: { v: {} },
    });
  });

  test("an included name that is taken is refused", () => {
    expect(problemsOf({ "stack.yml": `include: [a.yml]\n${service()}`, "a.yml": service() })).toEqual([
      "stack.yml:1:11: include[0]: conflicts with imported resource: services.web",
    ]);
  });

  test("problems of other files are told by their names", () => {
    const files = {
      "stack.yml": `include: [a.yml]\n${service("foo: 1")}`,
      "a.yml": "services: {a: {image: 1}}\n",
      "b.yml": "services: {b: {bar: 1}}\n",
    };
    expect(problemsOf(files)).toEqual([
      "stack.yml:5:5: services.web.foo: Additional property foo is not allowed",
      "a.yml:1:23: services.a.image: must be a string",
      "b.yml:1:16: services.b.bar: Additional property bar is not allowed",
    ]);
  });

  test("profiles", () => {
    const stack =
      "services: {a: {image: x}, b: {image: x, profiles: [debug]}, c: {image: x, profiles: [debug, more]}}\n";
    const names = (more: Parameters<typeof configOf>[1]) => Object.keys(configOf(stack, more).services as object);
    expect(names({})).toEqual(["a"]);
    expect(names({ profiles: ["more"] })).toEqual(["a", "c"]);
    expect(names({ profiles: ["*"] })).toEqual(["a", "b", "c"]);
    expect(names({ environment: { COMPOSE_PROFILES: "x,debug" } })).toEqual(["a", "b", "c"]);
  });

  test("!reset and !override", () => {
    const first = service(
      'ports: ["80:80"]',
      "labels: {a: b, c: d}",
      "command: [x]",
      "dns: [1.1.1.1]",
      "environment: {A: 1}",
    );
    const second = service(
      'ports: !override ["81:81"]',
      "labels: {a: !reset null, e: f}",
      "command: !reset []",
      "dns: !override [2.2.2.2]",
      "environment: !reset {}",
    );
    expect(configOf({ "stack.yml": first, "b.yml": second })).toEqual({
      services: {
        web: {
          dns: ["2.2.2.2"],
          image: "demo/web:1",
          labels: { c: "d", e: "f" },
          ports: [{ mode: "ingress", target: 81, published: 81, protocol: "tcp" }],
        },
      },
    });
  });

  test("depends_on as a list and as a map are one", () => {
    const files = {
      "stack.yml": "services: {a: {image: x}, b: {image: x}, web: {image: x, depends_on: [a]}}\n",
      "b.yml": "services: {web: {depends_on: {b: {condition: service_healthy, required: false}}}}\n",
    };
    expect(servicesOf(files).find(({ name }) => name === "shop_web")?.dependsOn).toMatchObject([
      { service: "shop_a", condition: 0, optional: false },
      { service: "shop_b", condition: 1, optional: true },
    ]);
  });
});

describe("fields that Docker's stacks refuse or drop", () => {
  test("privileges and namespaces", () => {
    const web = webOf(
      "privileged: true",
      "security_opt: [no-new-privileges, 'seccomp:unconfined', apparmor=mine, systempaths=unconfined]",
      "group_add: [1000, audio]",
      "devices: ['/dev/a:/dev/b:rw', /dev/c, {source: /dev/d, target: /dev/e, permissions: r}]",
      "device_cgroup_rules: ['c 1:3 rwm']",
      "shm_size: 128m",
      "pid: host",
      "ipc: host",
      "uts: host",
      "network_mode: host",
      "pull_policy: always",
      "tmpfs: ['/run:size=64m,mode=755,ro', /tmp]",
    );
    expect(web.task?.networks).toMatchObject([{ target: "host" }]);
    expect(web.task?.container).toMatchObject({
      privileged: true,
      security: { noNewPrivileges: true, seccomp: "unconfined", apparmor: "mine", systemPathsUnconfined: true },
      groups: ["1000", "audio"],
      devices: [
        { hostPath: "/dev/a", containerPath: "/dev/b", permissions: "rw" },
        { hostPath: "/dev/c", containerPath: "", permissions: "" },
        { hostPath: "/dev/d", containerPath: "/dev/e", permissions: "r" },
      ],
      deviceCgroupRules: ["c 1:3 rwm"],
      shmSizeBytes: 134217728n,
      pidMode: "host",
      ipcMode: "host",
      utsMode: "host",
      pullPolicy: 1,
      mounts: [
        { type: 2, target: "/run", tmpfsSizeBytes: 67108864n, tmpfsMode: 0o755, readOnly: true },
        { type: 2, target: "/tmp" },
      ],
    });
  });

  test("resources beside deploy", () => {
    const web = webOf(
      "mem_limit: 64m",
      "mem_reservation: 32m",
      "memswap_limit: -1",
      "mem_swappiness: 0",
      "cpus: 0.5",
      "cpu_shares: 512",
      "cpuset: 0-1",
      "pids_limit: 100",
      "scale: 3",
    );
    expect(web.mode?.mode).toMatchObject({ case: "replicated", value: { replicas: 3n } });
    expect(web.task?.resources).toMatchObject({
      limits: {
        nanoCpus: 500_000_000n,
        memoryBytes: 67108864n,
        memorySwapBytes: -1n,
        memorySwappiness: 0,
        cpuShares: 512n,
        cpusetCpus: "0-1",
        pids: 100n,
      },
      reservations: { memoryBytes: 33554432n },
    });
  });

  test("ports with addresses, and as texts", () => {
    const web = webOf("ports: ['80:80', '[::1]:81:81', {target: '82', published: '82', mode: host}, '9000-9002:83']");
    expect(
      web.endpoint?.ports.map(({ hostIp, publishedPort, targetPort }) => [hostIp, publishedPort, targetPort]),
    ).toEqual([
      ["", 80, 80],
      ["::1", 81, 81],
      ["", 82, 82],
      ["", 9000, 83],
      ["", 9001, 83],
      ["", 9002, 83],
    ]);
  });

  test("contents in the file and in variables", () => {
    const loaded = load(
      `${service("configs: [c]", "secrets: [{source: s, mode: '0400'}]")}configs: {c: {content: 'hello $SET'}}\nsecrets: {s: {environment: SET}}\n`,
    );
    if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
    const text = (data: Uint8Array | undefined) => new TextDecoder().decode(data);
    expect(loaded.spec.configs.map(({ name, data }) => [name, text(data)])).toEqual([["shop_c", "hello set"]]);
    expect(loaded.spec.secrets.map(({ name, data }) => [name, text(data)])).toEqual([["shop_s", "set"]]);
    expect(loaded.spec.services[0]?.task?.container).toMatchObject({
      configs: [{ configName: "shop_c", file: { name: "c", uid: "0", gid: "0" } }],
      secrets: [{ secretName: "shop_s", file: { name: "s", mode: 0o400 } }],
    });
  });

  test("name", () => {
    expect(configOf(`name: 'my-$SET'\n${service()}`)).toMatchObject({ name: "my-set" });
  });
});
