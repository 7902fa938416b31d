/** Bad stack files and the right answers, each case a row: what a tired person, or a hostile one, types. */
// biome-ignore-all lint/suspicious/noTemplateCurlyInString: they are the variables of stack files
import { expect, test } from "vitest";
import { type Content, deploy, load, problemsOf, service } from "./test-files.ts";

const LAUGHS = `x-a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n${["a", "b", "c", "d", "e", "f"]
  .map((name, index) => `x-${index}: &${String.fromCharCode(98 + index)} [${Array(10).fill(`*${name}`).join(", ")}]`)
  .join("\n")}\n${service()}`;

test.each<[string, Content, readonly (string | RegExp)[]]>([
  ["1: empty", "", ["stack.yml:1:1: top-level object must be a mapping"]],
  ["1: comments alone", "# nothing\n", ["stack.yml:1:1: top-level object must be a mapping"]],
  ["2: a list", "- a\n", ["stack.yml:1:1: top-level object must be a mapping"]],
  ["3: tabs", "services:\n\tweb:\n\t\timage: a\n", ["stack.yml:2:1: tabs are not allowed as indentation"]],
  [
    "4: a key twice",
    "services:\n  web:\n    image: a\n    image: b\n",
    ['stack.yml:4:5: services.web: mapping key "image" is already defined at line 3'],
  ],
  [
    "5: unknown field of a service",
    service("enviroment: {A: b}"),
    [
      "stack.yml:4:5: services.web.enviroment: Additional property enviroment is not allowed (did you mean environment?)",
    ],
  ],
  [
    "6: unknown at the top",
    `${service()}service: {}\n`,
    ["stack.yml:4:1: service: Additional property service is not allowed (did you mean services?)"],
  ],
  ["7: x-", `x-top: {a: [1]}\n${service("x-mine: {b: 1}")}`, []],
  [
    "8: version 3.99",
    `version: "3.99"\n${service()}`,
    ["stack.yml:1:10: version: unsupported Compose file version: 3.99 (3.0 to 3.13, or none)"],
  ],
  [
    "8: version 2.4",
    `version: "2.4"\n${service()}`,
    ["stack.yml:1:10: version: unsupported Compose file version: 2.4 (3.0 to 3.13, or none)"],
  ],
  ["9: no version", service(), []],
  ["10: image as a number", "services: {web: {image: 3}}", ["stack.yml:1:25: services.web.image: must be a string"]],
  [
    "11: replicas in words",
    deploy("replicas: three"),
    ["stack.yml:5:17: services.web.deploy.replicas: must be an integer"],
  ],
  [
    "12: fewer than none",
    deploy("replicas: -1"),
    ["stack.yml:5:17: services.web.deploy.replicas: -1 is too small: must be at least 0"],
  ],
  ["13: 1e20 replicas", deploy("replicas: 1e20"), ["stack.yml:5:17: services.web.deploy.replicas: must be an integer"]],
  [
    "13: too many replicas",
    deploy("replicas: 9007199254740991"),
    [/^stack\.yml:5:17: services\.web\.deploy\.replicas: 9007199254740991 is too many/],
  ],
  [
    "14: a name with a slash",
    "services: {a/b: {image: x}}",
    ['stack.yml:1:12: services."a/b": invalid name "a/b": letters, digits and ._- only'],
  ],
  [
    "15: a number as key",
    "services:\n  1:\n    image: x\n",
    ["stack.yml:2:3: services: non-string key 1: put it in quotes"],
  ],
  ["16: a billion laughs", LAUGHS, [/^stack\.yml:\d+:\d+: document contains excessive aliasing$/]],
  [
    "17: an anchor in itself",
    "services: &s\n  web: *s\n",
    ["stack.yml:2:8: services.web: alias *s: the anchor &s contains itself"],
  ],
  ["18: merge keys", "x-b: &b {image: a, user: u}\nservices: {web: {<<: *b, user: v}, db: {<<: [*b]}}", []],
  [
    "19: 5,000 levels of lists",
    `x-a: ${"[".repeat(5000)}${"]".repeat(5000)}\n`,
    [/^stack\.yml:1:\d+: nested more than 100 levels deep$/],
  ],
  [
    "19: 5,000 levels of maps",
    `x-a: ${"{a: ".repeat(5000)}${"}".repeat(5000)}\n`,
    [/^stack\.yml:1:\d+: nested more than 100 levels deep$/],
  ],
  [
    "20: more than 1 MiB",
    `# ${"x".repeat(1024 * 1024)}\n${service()}`,
    [/^stack\.yml: is \d+ bytes long; at most 1048576$/],
  ],
  ["21: two documents", `${service()}---\n${service()}`, [/^stack\.yml:4:1: /]],
  [
    "22: __proto__",
    service("__proto__: {polluted: true}"),
    ["stack.yml:4:5: services.web.__proto__: Additional property __proto__ is not allowed"],
  ],
  [
    "22: constructor",
    "constructor: 1\n",
    ["stack.yml:1:1: constructor: Additional property constructor is not allowed"],
  ],
  ["23: not UTF-8", Buffer.from("services:\n  web: \xff\n", "latin1"), ["stack.yml:2:8: is not valid UTF-8"]],
  ["23: BOM", `\ufeff${service()}`, []],
  ["23: NUL", "services:\n  a\0: 1\n", ["stack.yml:2:4: control character U+0000 is not allowed in YAML"]],
  [
    "24: !!js/function",
    service("user: !!js/function 'function() {}'"),
    ["stack.yml:4:25: services.web.user: tag !!js/function is not allowed"],
  ],
  ["24: !!binary", service("user: !!binary aGk="), ["stack.yml:4:20: services.web.user: tag !!binary is not allowed"]],
  [
    "25: a required variable",
    service("user: ${X:?say who}"),
    ["stack.yml:4:11: services.web.user: required variable X is missing a value: say who"],
  ],
  [
    "26: an open brace",
    service("user: ${X"),
    [/^stack\.yml:4:11: services\.web\.user: invalid interpolation format: "\$\{X"/],
  ],
  ["27: an escaped dollar", service("user: a$$b"), []],
  [
    "28: a boolean in environment",
    service("environment: {A: true}"),
    ["stack.yml:4:22: services.web.environment.A: must be a string, number or null"],
  ],
  [
    "29: port 70000",
    service('ports: ["70000:80"]'),
    ['stack.yml:4:13: services.web.ports[0]: invalid hostPort: "70000"'],
  ],
  [
    "30: ranges of unequal length",
    service('ports: ["8000-8010:80-82"]'),
    [
      "stack.yml:4:13: services.web.ports[0]: invalid ranges specified for container and host Ports: 80-82 and 8000-8010",
    ],
  ],
  ["31: port 0 is any", service('ports: ["0:80"]'), []],
  [
    "32: a published port twice",
    service('ports: ["80:80", "80:81"]'),
    ["stack.yml:4:22: services.web.ports[1]: duplicate published ports provided: 80/tcp"],
  ],
  ["33: 56:56 without quotes", service("ports:", "  - 56:56"), []],
  [
    "34: network not declared",
    service("networks: [front]"),
    ['stack.yml:4:16: services.web.networks.front: undefined network "front": declare it under networks'],
  ],
  [
    "35: secret not declared",
    service("secrets: [s]"),
    ['stack.yml:4:15: services.web.secrets[0]: undefined secret "s": declare it under secrets'],
  ],
  [
    "36: volume not declared",
    service('volumes: ["data:/data"]'),
    ['stack.yml:4:15: services.web.volumes[0].source: undefined volume "data": declare it under volumes'],
  ],
  ["37: a circle of depends_on", "services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [a]}}", []],
  [
    "37: a circle with conditions",
    "services: {a: {image: x, depends_on: {b: {condition: service_healthy}}}, b: {image: x, depends_on: {a: {condition: service_healthy}}}}",
    [
      "stack.yml:1:42: services.a.depends_on.b: circular: a → b → a",
      "stack.yml:1:104: services.b.depends_on.a: circular: b → a → b",
    ],
  ],
  ["38: depends_on nobody", service("depends_on: [nobody]"), []],
  [
    "39: no image",
    "services: {web: {user: u}}",
    ["stack.yml:1:17: services.web.image: image reference must be provided"],
  ],
  [
    "40: 50XB",
    deploy("resources: {limits: {memory: 50XB}}"),
    ['stack.yml:5:36: services.web.deploy.resources.limits.memory: invalid suffix: "XB"'],
  ],
  [
    "41: fewer than no CPUs",
    deploy('resources: {limits: {cpus: "-1"}}'),
    ["stack.yml:5:34: services.web.deploy.resources.limits.cpus: -1 is too small: must be at least 0"],
  ],
  [
    "42: 1 MiB",
    deploy("resources: {limits: {memory: 1M}}"),
    [
      "stack.yml:5:36: services.web.deploy.resources.limits.memory: invalid memory value 1048576: Must be at least 4MiB",
    ],
  ],
  [
    "43: 10 of what",
    service("stop_grace_period: 10"),
    ["stack.yml:4:24: services.web.stop_grace_period: must be a string"],
  ],
  [
    "43: parsecs",
    service("stop_grace_period: 10parsecs"),
    [/^stack\.yml:4:24: services\.web\.stop_grace_period: does not match format 'duration': .*"parsecs"/],
  ],
  [
    "44: mode sideways",
    deploy("mode: sideways"),
    [
      "stack.yml:5:13: services.web.deploy.mode: unknown mode: sideways (replicated, global, replicated-job or global-job)",
    ],
  ],
  [
    "45: order random",
    deploy("update_config: {order: random}"),
    ['stack.yml:5:30: services.web.deploy.update_config.order: must be one of start-first, stop-first, not "random"'],
  ],
  [
    "46: ratio 1.5",
    deploy("update_config: {max_failure_ratio: 1.5}"),
    ["stack.yml:5:42: services.web.deploy.update_config.max_failure_ratio: 1.5 is too large: must be at most 1"],
  ],
  [
    "47: a constraint with two signs",
    deploy('placement: {constraints: ["node.role = = x"]}'),
    [
      /^stack\.yml:5:33: services\.web\.deploy\.placement\.constraints\[0\]: constraint "node\.role = = x": expected one operator/,
    ],
  ],
  [
    "48: links",
    service("links: [web, 'web:www', db]"),
    [
      /^stack\.yml:4:18: services\.web\.links\[1\]: "web:www" is not supported: services of a stack find each other by name/,
      /^stack\.yml:4:29: services\.web\.links\[2\]: "db" is not supported: /,
    ],
  ],
  [
    "48: build alone",
    "services: {web: {build: .}}",
    [/^stack\.yml:1:25: services\.web\.build: stacks are not built/, /image reference must be provided/],
  ],
  ["48: network_mode host", service("network_mode: host"), []],
  ["48: restart", service("restart: always"), []],
  [
    "50: an empty secret",
    `${service()}secrets: {s: {file: empty}}\n`,
    ["stack.yml:4:21: secrets.s.file: is 0 bytes long: secret data must be larger than 0 and at most 512000 bytes"],
  ],
  [
    "50: a secret of 600 KB",
    `${service()}secrets: {s: {file: big}}\n`,
    [
      "stack.yml:4:21: secrets.s.file: is 614400 bytes long: secret data must be larger than 0 and at most 512000 bytes",
    ],
  ],
  ["50: a config of 600 KB", `${service()}configs: {s: {file: big}}\n`, []],
  [
    "51: env_file missing",
    service("env_file: none.env"),
    ["stack.yml:4:15: services.web.env_file[0]: none.env: no such file or directory"],
  ],
  [
    "52: 501 services",
    `services:\n${Array.from({ length: 501 }, (_, index) => `  s${index}: {image: x}\n`).join("")}`,
    ["stack.yml:2:3: services: 501 services: at most 500 in a stack"],
  ],
  [
    "53: a check every 1 µs",
    service("healthcheck: {test: x, interval: 1us}"),
    ["stack.yml:4:38: services.web.healthcheck.interval: cannot be less than 1ms"],
  ],
])("%s", expectProblems);

test.each<[string, Content, readonly (string | RegExp)[]]>([
  [
    "a field of deploy beside it",
    service("replicas: 3"),
    [/^stack\.yml:4:5: services\.web\.replicas: Additional property replicas is not allowed/],
  ],
  [
    "deploy misspelled",
    service("deploys: {replicas: 3}"),
    ["stack.yml:4:5: services.web.deploys: Additional property deploys is not allowed (did you mean deploy?)"],
  ],
  ["a service at the top", "web:\n  image: x\n", [/^stack\.yml:1:1: web: Additional property web is not allowed/]],
  ["services as a list", "services:\n  - web\n", ["stack.yml:2:3: services: must be a mapping"]],
  ["a service as a text", "services:\n  web: nginx\n", ["stack.yml:2:8: services.web: must be a mapping"]],
  ["a service with nothing", "services:\n  web:\n", ["stack.yml:2:7: services.web: must be a mapping"]],
  [
    "a colon without a blank",
    "services:\n  web:\n    image:nginx\n",
    ["stack.yml:3:5: services.web: must be a mapping"],
  ],
  [
    "a dash without a blank",
    service("cap_add:", "  -NET_ADMIN"),
    ["stack.yml:5:7: services.web.cap_add: must be a list"],
  ],
  ["ports as a text", service('ports: "80:80"'), ["stack.yml:4:12: services.web.ports: must be a list"]],
  [
    "an arrow of a port",
    service('ports: ["80->80"]'),
    [/^stack\.yml:4:13: services\.web\.ports\[0\]: invalid containerPort/],
  ],
  ["a blank in a port", service('ports: ["80: 80"]'), ['stack.yml:4:13: services.web.ports[0]: invalid port "80: 80"']],
  [
    "a service's port in words",
    service("ports: [http]"),
    [/^stack\.yml:4:13: services\.web\.ports\[0\]: invalid containerPort: "http"/],
  ],
  [
    "one variable two times",
    service("environment: [A=1, A=1]"),
    ['stack.yml:4:24: services.web.environment[1]: "A=1" stands at [0] already'],
  ],
  [
    "environment as a text",
    service("environment: A=1"),
    ["stack.yml:4:18: services.web.environment: must be a list or mapping"],
  ],
  [
    "a mount without target",
    service("volumes: [{type: tmpfs}]"),
    [/^stack\.yml:4:15: services\.web\.volumes\[0\]: target: invalid mount target ""/],
  ],
  [
    "a mount of no type",
    service("volumes: [{source: a, target: /b}]"),
    ["stack.yml:4:15: services.web.volumes[0]: type is required"],
  ],
  [
    "a mount in three colons",
    service('volumes: ["/a:/b:ro:z"]'),
    [/^stack\.yml:4:15: services\.web\.volumes\[0\]: invalid spec: "\/a:\/b:ro:z": too many colons/],
  ],
  [
    "a mount read and write",
    service('volumes: ["/a:/b:readonly"]'),
    ['stack.yml:4:15: services.web.volumes[0]: invalid spec: "/a:/b:readonly": unknown option "readonly"'],
  ],
  [
    "a decimal comma",
    deploy('resources: {limits: {cpus: "0,5"}}'),
    ['stack.yml:5:34: services.web.deploy.resources.limits.cpus: failed to parse "0,5" as a number'],
  ],
  [
    "megabytes as Mi",
    deploy("resources: {limits: {memory: 64Mi}}"),
    ['stack.yml:5:36: services.web.deploy.resources.limits.memory: invalid suffix: "Mi"'],
  ],
  [
    "replicas of a global service",
    deploy("mode: global", "replicas: 2"),
    ["stack.yml:6:17: services.web.deploy.replicas: replicas can only be used with replicated or replicated-job mode"],
  ],
  ["restart as a boolean", service("restart: false"), ["stack.yml:4:14: services.web.restart: must be a string"]],
  [
    "restart in other words",
    service("restart: allways"),
    [/^stack\.yml:4:14: services\.web\.restart: must be one of no, always, unless-stopped, on-failure/],
  ],
  [
    "restart of deploy in words of restart",
    deploy("restart_policy: {condition: always}"),
    [
      'stack.yml:5:35: services.web.deploy.restart_policy.condition: must be one of any, on-failure, none, not "always"',
    ],
  ],
  [
    "a network of one host",
    `${service("networks: [back]")}networks: {back: {driver: bridge}}\n`,
    ['stack.yml:5:27: networks.back.driver: "bridge": network drivers are not supported, only overlay is'],
  ],
  [
    "a network of a driver for addresses",
    `${service("networks: [back]")}networks: {back: {ipam: {driver: infoblox}}}\n`,
    ['stack.yml:5:34: networks.back.ipam.driver: "infoblox" is not supported: the managers choose the addresses'],
  ],
  [
    "a gateway elsewhere",
    `${service("networks: [back]")}networks: {back: {ipam: {config: [{subnet: 10.9.0.0/24, gateway: 10.8.0.1}]}}}\n`,
    ["stack.yml:5:66: networks.back.ipam.config[0].gateway: 10.8.0.1 is not in 10.9.0.0/24"],
  ],
  [
    "a subnet without its length, and an MTU that is no number",
    `${service("networks: [back]")}networks: {back: {driver_opts: {com.docker.network.driver.mtu: big}, ipam: {config: [{subnet: 10.9.0.0}]}}}\n`,
    [
      /^stack\.yml:5:\d+: networks\.back\.driver_opts\S*mtu": "big" is not a number of bytes/,
      'stack.yml:5:95: networks.back.ipam.config[0].subnet: "10.9.0.0" is not a subnet such as 10.0.9.0/24',
    ],
  ],
  [
    "a static address of several",
    `${service("networks: {default: {ipv4_address: 10.0.0.5}}", "deploy: {replicas: 2}")}`,
    [/^stack\.yml:4:\d+: services\.web\.networks\.default: addresses: a fixed address needs a service of one replica/],
  ],
  [
    "an alias with a space",
    `${service('networks: {default: {aliases: ["a b"]}}')}`,
    [/^stack\.yml:4:\d+: services\.web\.networks\.default: aliases: "a b" is not a name that DNS has/],
  ],
  [
    "an interface's name",
    `${service("networks: {default: {interface_name: lan0}}")}`,
    [
      "stack.yml:4:42: services.web.networks.default.interface_name: is not supported: interfaces are named eth0, eth1, …",
    ],
  ],
  [
    "an affinity that there is not",
    service("x-session-affinity: cookie"),
    ['stack.yml:4:25: services.web.x-session-affinity: must be one of none, client-ip, not "cookie"'],
  ],
  [
    "a secret from nowhere",
    `${service()}secrets: {s: {}}\n`,
    ["stack.yml:4:14: secrets.s: needs one of file, environment or external: true"],
  ],
  [
    "a secret from a variable that is not set",
    `${service()}secrets: {s: {environment: NOPE}}\n`,
    ["stack.yml:4:28: secrets.s.environment: the variable NOPE is not set"],
  ],
  [
    "a secret file that is missing",
    `${service()}secrets: {s: {file: nope}}\n`,
    ["stack.yml:4:21: secrets.s.file: /app/nope: no such file or directory"],
  ],
  [
    "an unescaped password hash",
    service('labels: ["auth=admin:$2y$05$abc"]'),
    [/^stack\.yml:4:14: services\.web\.labels\[0\]: invalid interpolation format: .*escape any \$ with another \$/],
  ],
  [
    "a variable in braces without quotes",
    "services: {web: {image: demo:${SET}}}\n",
    [/^stack\.yml:1:31: .*: a variable between braces needs quotes$/],
  ],
  ["an anchor that is not there", service("labels: *nope"), [/^stack\.yml:4:\d+: .*nope/]],
  [
    "bad names in env_file",
    service("env_file: folder.env"),
    [/^stack\.yml:4:15: services\.web\.env_file\[0\]: folder\.env: line 1: variable "BAD NAME" contains whitespaces/],
  ],
  ["extends itself", service("extends: web"), ["stack.yml:4:14: services.web.extends: circular: web → web"]],
  [
    "extends nobody",
    service("extends: {service: nobody}"),
    ['stack.yml:4:14: services.web.extends: service "nobody" is not defined'],
  ],
  [
    "includes itself",
    `include: [stack.yml]\n${service()}`,
    ["stack.yml:1:11: include[0]: circular: /app/stack.yml → /app/stack.yml"],
  ],
  [
    "two counts",
    service("scale: 2", "deploy: {replicas: 3}"),
    ["stack.yml:4:12: services.web.scale: can't set distinct values on scale (2) and deploy.replicas (3)"],
  ],
  [
    "an image in capitals",
    "services: {web: {image: Demo/Web}}\n",
    [/^stack\.yml:1:25: services\.web\.image: "Demo\/Web" is not a valid repository\/tag/],
  ],
  [
    "an address that is none",
    service('extra_hosts: ["db"]'),
    ['stack.yml:4:19: services.web.extra_hosts[0]: bad format for extra host: "db" (name:address)'],
  ],
  [
    "everything at once",
    "services: {a: {image: 3, foo: 1}, b: {ports: [x], deploy: {replicas: -1}}}\nbar: 1\n",
    [
      /^stack\.yml:1:23: services\.a\.image: must be a string/,
      /^stack\.yml:1:26: services\.a\.foo: Additional property foo/,
      /^stack\.yml:1:47: services\.b\.ports\[0\]: invalid containerPort/,
      /^stack\.yml:1:70: services\.b\.deploy\.replicas: -1 is too small/,
      /^stack\.yml:2:1: bar: Additional property bar/,
    ],
  ],
])("typed by a tired person: %s", expectProblems);

function expectProblems(_: string, content: Content, expected: readonly (string | RegExp)[]): void {
  const found = problemsOf({
    "stack.yml": content,
    empty: "",
    big: "x".repeat(600 * 1024),
    "folder.env": "BAD NAME=1",
  });
  expect(
    found.map((line, index) =>
      expected[index] instanceof RegExp && expected[index].test(line) ? expected[index] : line,
    ),
  ).toEqual(expected);
}

test("16: a billion laughs cost neither time nor memory", () => {
  const before = process.memoryUsage().heapUsed;
  const start = process.cpuUsage();
  expect(problemsOf(LAUGHS)).toHaveLength(1);
  // Of the processor: others may be using it too.
  expect(process.cpuUsage(start).user / 1000).toBeLessThan(100);
  expect(process.memoryUsage().heapUsed - before).toBeLessThan(50 * 1024 * 1024);
});

test.each<[string, string, readonly string[]]>([
  [
    "27: an unset variable",
    service("user: a${NOPE}"),
    ["stack.yml:4:11: services.web.user: the variable NOPE is not set: taken as empty"],
  ],
  [
    "37: a circle of depends_on",
    "services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [a]}}",
    [
      "stack.yml:1:39: services.a.depends_on[0]: circular: a → b → a: the order is not kept",
      "stack.yml:1:71: services.b.depends_on[0]: circular: b → a → b: the order is not kept",
    ],
  ],
  [
    "38: depends_on nobody",
    service("depends_on: [nobody]"),
    ['stack.yml:4:18: services.web.depends_on[0]: the stack has no service "nobody": it is not waited for'],
  ],
  [
    "48: build beside image",
    service("build: ."),
    ["stack.yml:4:12: services.web.build: is not done: demo/web:1 is taken as it is"],
  ],
  [
    "48: container_name",
    service("container_name: it"),
    ["stack.yml:4:21: services.web.container_name: is not taken: tasks are named after their service and slot"],
  ],
  [
    "external.name",
    `${service()}secrets: {s: {external: {name: x}}}\n`,
    ["stack.yml:4:32: secrets.s: external.name is deprecated in favor of name"],
  ],
])("warned of: %s", (_, content, warnings) => {
  const loaded = load(content);
  expect(loaded).toMatchObject({ ok: true, warnings });
});

test("22: a hostile key pollutes nothing", () => {
  load("services: {web: {image: x, labels: {__proto__: y, constructor: z}}}\n");
  expect(Object.hasOwn(Object.prototype, "y")).toBe(false);
  expect(problemsOf("__proto__: {a: 1}\nservices: {web: {image: x}}\n")).toHaveLength(1);
});
