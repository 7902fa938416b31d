/**
 * Goal: secrets and configs reach the tasks that use them and nobody else, change in place or by rolling, and leave
 * nothing behind. Method: real programs on two hosts; what lies in etcd and on the nodes is looked at from outside.
 */
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect } from "vitest";
import { eventually } from "../eventually.ts";
import { buildImage, busyboxFiles } from "../images.ts";
import { isRoot, rootTest } from "../privileges.ts";
import { directory, file, symlink } from "../tar.ts";
import { TestCluster } from "./cluster.ts";

const PASSWORD = "correct-horse-battery-staple-7261";
/** Prints its contents at its start and at each SIGHUP. */
const READER = `#!/bin/sh
show() { echo "password=$(cat /run/secrets/password) conf=$(cat /etc/app/app.conf) owner=$(stat -L -c %u:%g:%a /etc/app/app.conf)"; }
trap 'show' HUP
trap 'exit 0' TERM
show
while true; do sleep 3600 & wait $!; done
`;

let cluster: TestCluster;

beforeAll(async () => {
  if (!isRoot) return;
  cluster = await TestCluster.start({ nodes: 2 });
  const image = buildImage({
    name: "demo/reader:1",
    directory: cluster.folder("images"),
    layers: [
      { files: busyboxFiles() },
      {
        files: [
          file("bin/reader", READER, 0o755),
          directory("etc/app"),
          file("etc/app/app.conf", "the image's own\n"),
          // A hostile image: the folder of a target leads out of the root.
          symlink("../../../../../../../tmp", "escape"),
        ],
      },
    ],
    config: { Env: ["PATH=/bin"], Cmd: ["reader"] },
  });
  await cluster.swarmctl("image", "load", image);
});

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

function write(name: string, text: string): string {
  const path = join(cluster.folder("files"), name);
  writeFileSync(path, text, { mode: 0o600 });
  return path;
}

const logs = () => cluster.swarmctl("service", "logs", "--raw", "reader");
const running = () => cluster.swarmctl("service", "ps", "-q", "--no-trunc", "-f", "desired-state=running", "reader");

/** The folders of tasks that have contents on a node's tmpfs. */
function contentFolders(node: string): string[] {
  const id = execFileSync("cat", [join(cluster.directory, node, "node-id")], { encoding: "utf8" }).trim();
  const places = ["/run", "/dev/shm"].map((place) => `${place}/swarm-agent/${id}`).filter((path) => existsSync(path));
  return places.flatMap((place) => {
    expect(statSync(place).mode & 0o777).toBe(0o700);
    expect(execFileSync("stat", ["-f", "-c", "%T", place], { encoding: "utf8" })).toBe("tmpfs\n");
    return readdirSync(place);
  });
}

/** Files below `folder` whose bytes hold the text. */
function filesWith(folder: string, text: string): string {
  try {
    return execFileSync("grep", ["-r", "-l", "-a", "-F", text, folder], { encoding: "utf8" });
  } catch {
    return "";
  }
}

rootTest("a service reads its secret and its config, where and as whom it was told", async () => {
  await cluster.swarmctl("secret", "create", "password", write("password", PASSWORD));
  await cluster.swarmctl("config", "create", "-l", "tier=web", "app.conf", write("app.conf", "one"));
  await cluster.swarmctl(
    "service",
    "create",
    ...["--name", "reader", "--constraint", "node.hostname==node-1", "--read-only", "--update-monitor", "200ms"],
    ...["--secret", "password", "--config", "source=app.conf,target=/etc/app/app.conf,uid=65534,gid=0,mode=0440"],
    "demo/reader:1",
  );
  await eventually(async () => expect(await logs()).toBe(`password=${PASSWORD} conf=one owner=65534:0:440\n`));
});

rootTest(
  "the secret is nowhere else: not in etcd, not on disks, not on the other node, not in what the API shows",
  async () => {
    const managerData = join(cluster.directory, "manager-0");
    expect(filesWith(managerData, "app.conf")).not.toBe("");
    expect(filesWith(managerData, PASSWORD)).toBe("");
    expect(contentFolders("node-1")).toHaveLength(1);
    expect(contentFolders("node-2")).toEqual([]);
    for (const node of ["node-1", "node-2"]) {
      const found = filesWith(join(cluster.directory, node), PASSWORD).split("\n").filter(Boolean);
      // What the program itself logged is its own doing.
      expect(found.filter((path) => !/\/log(\.\d+)?$/.test(path))).toEqual([]);
    }
    for (const { logPath } of [...cluster.managers, ...cluster.agents.values()]) {
      expect(filesWith(logPath, PASSWORD)).toBe("");
    }
    expect(await cluster.swarmctl("secret", "inspect", "password")).not.toContain(PASSWORD);
    expect(await cluster.swarmctl("service", "inspect", "reader")).not.toContain(PASSWORD);
    const shown = await cluster.swarmctl("config", "inspect", "-f", "{{.Spec.Data}}", "app.conf");
    expect(Buffer.from(shown.trim(), "base64").toString()).toBe("one");
    expect(await cluster.swarmctl("config", "ls", "-f", "label=tier=web", "--format", "{{.Name}}")).toBe("app.conf\n");
  },
);

rootTest("a change in place reaches the running task, with its signal or without one", async () => {
  const before = await running();
  await cluster.swarmctl("config", "update", "--on-change", "signal=HUP", "app.conf", write("app.conf", "two"));
  await eventually(async () => expect(await logs()).toMatch(/conf=two owner=65534:0:440\n$/));
  await cluster.swarmctl("config", "update", "--on-change", "none", "app.conf", write("app.conf", "three"));
  expect(await running()).toBe(before);
  await cluster.swarmctl("config", "update", "--on-change", "signal=HUP", "app.conf", write("app.conf", "four"));
  await eventually(async () => expect(await logs()).toMatch(/conf=four owner=65534:0:440\n$/));
  expect(await logs()).not.toContain("three");
  expect(await running()).toBe(before);
});

rootTest("the same content changes nothing", async () => {
  const before = await cluster.swarmctl("service", "inspect", "-f", "{{.Version.Index}}", "reader");
  await cluster.swarmctl("config", "update", "app.conf", write("app.conf", "four"));
  expect(await cluster.swarmctl("service", "inspect", "-f", "{{.Version.Index}}", "reader")).toBe(before);
});

rootTest("by default a change rolls the service, and a rollback brings the old content back", async () => {
  const before = await running();
  await cluster.swarmctl("secret", "update", "password", write("password", "tr0ub4dor"));
  expect(await running()).not.toBe(before);
  await eventually(async () => expect(await logs()).toMatch(/password=tr0ub4dor conf=four/));
  await cluster.swarmctl("service", "rollback", "reader");
  const [task = ""] = (await running()).split("\n");
  await eventually(async () => {
    const own = await cluster.swarmctl("service", "logs", "--raw", task);
    expect(own).toBe(`password=${PASSWORD} conf=four owner=65534:0:440\n`);
  });
});

rootTest("contents survive the agent, and follow changes that were made while it was away", async () => {
  const before = await running();
  await cluster.end(cluster.agent("node-1"), "SIGKILL");
  const change = ["config", "update", "-d", "--on-change", "signal=HUP", "app.conf", write("app.conf", "five")];
  await cluster.swarmctl(...change);
  cluster.startAgent(cluster.host("node-1"));
  await eventually(async () => expect(await logs()).toContain("conf=five"), { timeoutMs: 20_000 });
  expect(await running()).toBe(before);
});

rootTest("templates are expanded on the node", async () => {
  const text = 'at {{.Node.Hostname}} {{env "MODE"}} with {{secret "password"}}';
  await cluster.swarmctl("config", "create", "--template-driver", "golang", "templated", write("templated", text));
  await cluster.swarmctl(
    "service",
    "create",
    ...["--name", "templated", "--env", "MODE=fast", "--constraint", "node.hostname==node-2", "--restart-condition"],
    ...["none", "-d", "--secret", "password", "--config", "templated", "demo/reader:1", "cat", "/templated"],
  );
  await eventually(async () => {
    expect(await cluster.swarmctl("service", "logs", "--raw", "templated")).toBe("at node-2 fast with tr0ub4dor\n");
  });
  await cluster.swarmctl("service", "rm", "templated");
});

rootTest("a target that leads out of the image's root stays inside", async () => {
  const name = `escaped-${process.pid}`;
  await cluster.swarmctl(
    "service",
    "create",
    ...["--name", "hostile", "-d", "--restart-condition", "none", "--config", `source=app.conf,target=/escape/${name}`],
    ...["demo/reader:1", "cat", `/tmp/${name}`],
  );
  await eventually(async () => {
    expect(await cluster.swarmctl("service", "logs", "--raw", "hostile")).toBe("five\n");
  });
  expect(existsSync(`/tmp/${name}`)).toBe(false);
  await cluster.swarmctl("service", "rm", "hostile");
});

rootTest("what is in use cannot be removed; afterwards nothing stays", async () => {
  const refused = await cluster.swarmctlAt(0, "secret", "rm", "password");
  expect(refused).toMatchObject({ code: 1, stdout: "" });
  expect(refused.stderr).toContain("secret 'password' is in use by the following service: reader");
  await cluster.swarmctl("service", "rm", "reader");
  await eventually(async () => {
    await cluster.swarmctl("secret", "rm", "password");
  });
  await cluster.swarmctl("config", "rm", "app.conf", "templated");
  await eventually(() => {
    expect(contentFolders("node-1")).toEqual([]);
    expect(contentFolders("node-2")).toEqual([]);
  });
});

rootTest("bad ones are refused by field", async () => {
  const large = write("large", "x".repeat(600 * 1024));
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [["secret", "create", "big", large], /secret data must be larger than 0 and less than 512000 bytes/],
    [["secret", "create", "empty", write("empty", "")], /larger than 0/],
    [["secret", "create", "-bad-", large], /invalid name|unknown/],
    [["secret", "create", "-d", "vault", "x", large], /there are no secret drivers/],
    [["config", "create", "--template-driver", "jinja", "x", large], /only golang is/],
    [["config", "inspect", "nope"], /no such config: nope/],
    [["service", "create", "--secret", "nope", "demo/reader:1"], /secrets\[0\]: secret not found: "nope"/],
  ];
  for (const [words, message] of cases) {
    const { code, stderr } = await cluster.swarmctlAt(0, ...words);
    expect([1, 2], words.join(" ")).toContain(code);
    expect(stderr).toMatch(message);
  }
});
