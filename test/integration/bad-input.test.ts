/**
 * Goal: what cannot work is refused with words that help, and leaves nothing behind. Method: swarmctl as a user would
 * mistype it (hardening cases 54-65, 76-78, 88-94), and images that cannot be had.
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { writeDemoImage } from "../../deploy/demo/image.ts";
import { eventually } from "../eventually.ts";
import { buildImage, busyboxFiles } from "../images.ts";
import { isRoot, rootTest } from "../privileges.ts";
import { TestCluster } from "./cluster.ts";

let cluster: TestCluster;

beforeAll(async () => {
  if (!isRoot) return;
  cluster = await TestCluster.start({ nodes: 1 });
  await cluster.swarmctl("image", "load", writeDemoImage(cluster.folder("images"), "1"));
  await cluster.swarmctl("service", "create", "--name", "web", "demo/web:1");
  await cluster.swarmctl("service", "create", "--name", "web2", "--replicas", "0", "-d", "demo/web:1");
});

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

describe("swarmctl", () => {
  const cases: readonly [string, readonly string[], number, RegExp][] = [
    ["54 unknown command", ["servce", "ls"], 2, /servce.*(service)/],
    ["54 unknown flag", ["service", "create", "--replica", "3", "demo/web:1"], 2, /--replica\b.*--replicas/],
    ["55 missing argument", ["service", "create"], 2, /service create/],
    ["56 scale to a negative number", ["service", "scale", "web=-1"], 2, /web.*-1/],
    ["56 scale to a word", ["service", "scale", "web=abc"], 2, /web.*abc/],
    ["56 scale without a number", ["service", "scale", "web"], 2, /web/],
    ["56 all or nothing", ["service", "scale", "web2=3", "nosuch=1"], 1, /nosuch/],
    ["64 a name with a newline", ["service", "create", "--name", "a\nb", "demo/web:1"], 1, /name/],
    ["65 an unknown field", ["service", "ls", "--format", "{{.Nope}}"], 2, /Nope/],
    ["76 a service that is not there", ["service", "ps", "nosuch"], 1, /nosuch/],
    ["77 a name that is taken", ["service", "create", "--name", "web", "demo/web:1"], 1, /web.*(exists|in use|taken)/],
    ["88 an upper-case image", ["service", "create", "UPPER/case"], 1, /UPPER\/case.*not a valid/],
    ["90 a bad port", ["service", "create", "host:99999/a"], 1, /99999|not a valid/],
    ["92 a URL", ["service", "create", "http://example.com/a"], 1, /not a valid|reference/],
    ["a port that is too high", ["service", "create", "-p", "70000:80", "demo/web:1"], 2, /70000/],
  ];

  for (const [name, args, code, message] of cases) {
    rootTest(name, async () => {
      const answer = await cluster.swarmctlAt(0, ...args);
      expect(answer.stderr).toMatch(message);
      expect(answer.code, answer.stderr).toBe(code);
      expect(answer.stdout).toBe("");
      expect(answer.stderr.trimEnd().split("\n").length).toBeLessThanOrEqual(code === 2 ? 6 : 1);
    });
  }

  rootTest("59 no manager", async () => {
    const answer = await cluster.exec("cli/swarmctl", "--host", "unix:///nonexistent.sock", "node", "ls");
    expect(answer).toMatchObject({ code: 1, stdout: "", stderr: expect.stringContaining("unix:///nonexistent.sock") });
  });

  rootTest("a bad spec is refused with every bad field at once", async () => {
    const flags = [
      "--limit-memory",
      "1M",
      "--constraint",
      "node.role = = x",
      "--health-interval",
      "1us",
      "--health-cmd",
      "true",
    ];
    const answer = await cluster.swarmctlAt(0, "service", "create", "--name", "bad/name", ...flags, "demo/web:1");
    expect(answer.code).not.toBe(0);
    for (const field of ["name", "memory", "constraint", "interval"]) expect(answer.stderr).toContain(field);
  });

  rootTest("nothing of all that was made", async () => {
    expect(
      (await cluster.swarmctl("service", "ls", "--format", "{{.Name}} {{.Replicas}}"))
        .split("\n")
        .filter(Boolean)
        .sort(),
    ).toEqual(["web 1/1", "web2 0/0"]);
  });

  rootTest("62 a closed stdout ends it quietly", async () => {
    const socket = `unix://${cluster.socket()}`;
    const answer = await cluster.exec(
      "sh",
      "-c",
      `cli/swarmctl --host ${socket} service inspect web web web web | true`,
    );
    expect(answer.stderr).toBe("");
  });
});

describe("images that cannot be had", () => {
  async function rejected(name: string, image: string, reason: RegExp): Promise<void> {
    await cluster.swarmctl("service", "create", "-d", "--name", name, "--restart-condition", "none", image);
    await eventually(
      async () => {
        const state = await cluster.swarmctl(
          "service",
          "ps",
          name,
          "--no-trunc",
          "--format",
          "{{.CurrentState}} {{.Error}}",
        );
        expect(state).toMatch(/^Rejected/);
        expect(state).toMatch(reason);
      },
      { timeoutMs: 60_000 },
    );
    await cluster.swarmctl("service", "rm", name);
    await eventually(() => expect(readdirSync(join(cluster.directory, "node-1/tasks"))).toHaveLength(1));
  }

  rootTest("no registry answers", async () => {
    await rejected("down", `${cluster.fabric.address}:5000/nothing/here:1`, /refused/i);
  });

  rootTest("another architecture only", async () => {
    const layers = [{ files: busyboxFiles() }];
    const image = buildImage({
      name: "other/arch:1",
      architecture: "riscv64",
      layers,
      directory: cluster.folder("images"),
    });
    await cluster.swarmctl("image", "load", image);
    await cluster.swarmctl("service", "create", "-d", "--name", "arch", "other/arch:1");
    await eventually(async () => {
      expect(await cluster.swarmctl("service", "ps", "arch", "--no-trunc")).toMatch(
        /unsupported platform on 1 node|no matching manifest/,
      );
    });
    await cluster.swarmctl("service", "rm", "arch");
  });

  rootTest("94 no command", async () => {
    const image = buildImage({
      name: "no/command:1",
      layers: [{ files: busyboxFiles() }],
      directory: cluster.folder("images"),
    });
    await cluster.swarmctl("image", "load", image);
    await rejected("mute", "no/command:1", /no command specified/);
  });

  rootTest("a command that is not there", async () => {
    await cluster.swarmctl(
      "service",
      "create",
      "-d",
      "--name",
      "lost",
      "--restart-condition",
      "none",
      "demo/web:1",
      "/no/such/program",
    );
    await eventually(async () => {
      const state = await cluster.swarmctl(
        "service",
        "ps",
        "lost",
        "--no-trunc",
        "--format",
        "{{.CurrentState}} {{.Error}}",
      );
      expect(state).toMatch(/^(Rejected|Failed) .*\/no\/such\/program/);
    });
    await cluster.swarmctl("service", "rm", "lost");
  });
});
