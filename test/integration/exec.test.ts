/**
 * Goal: a person and a script reach into running tasks from any manager, with streams, terminals and exit codes as if the
 * command ran here, and nothing runs on that nobody wanted to. Method: real programs, two managers, one node; terminals
 * are script(1)'s; what runs is counted on the host.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createHash, randomFillSync } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { eventually } from "../eventually.ts";
import { buildImage, busyboxFiles } from "../images.ts";
import { isRoot, rootTest } from "../privileges.ts";
import { file } from "../tar.ts";
import { TestCluster } from "./cluster.ts";

const SWARMCTL = new URL("../../cli/swarmctl", import.meta.url).pathname;
let cluster: TestCluster;

beforeAll(async () => {
  if (!isRoot) return;
  cluster = await TestCluster.start({ nodes: 1, managers: 2 });
  const image = buildImage({
    name: "demo/box:1",
    directory: cluster.folder("images"),
    layers: [
      {
        files: [
          ...busyboxFiles(),
          file("etc/passwd", "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n"),
        ],
      },
    ],
    config: { Env: ["PATH=/bin"], Cmd: ["sleep", "100000"] },
  });
  await cluster.swarmctl("image", "load", image);
  await cluster.swarmctl(
    "service",
    "create",
    "--name",
    "box",
    "--replicas",
    "2",
    "--update-monitor",
    "200ms",
    "demo/box:1",
  );
});
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

const argvAt = (manager: number, ...words: readonly string[]) => [
  "--host",
  `unix://${cluster.socket(manager)}`,
  ...words,
];

/** What a child wrote so far, and how it ended. */
class Talk {
  readonly child: ChildProcess;
  readonly ended: Promise<number | null>;
  #parts: Buffer[] = [];
  stderr = "";

  constructor(program: string, args: readonly string[]) {
    this.child = spawn(program, args, { stdio: "pipe", env: { ...process.env, TERM: "xterm" } });
    this.child.stdout?.on("data", (part: Buffer) => this.#parts.push(part));
    this.child.stderr?.on("data", (part: Buffer) => {
      this.stderr += part.toString();
    });
    this.child.stdin?.on("error", () => {});
    this.ended = new Promise((resolve) => this.child.once("close", (code) => resolve(code)));
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#parts);
  }

  get text(): string {
    return this.bytes.toString();
  }

  type(text: string): void {
    this.child.stdin?.write(text);
  }

  shows(text: string | RegExp): Promise<void> {
    return eventually(() => expect(this.text).toMatch(text), { timeoutMs: 15_000 });
  }
}

/** swarmctl on a terminal of 33 by 111, in a shell that tells afterwards whether the terminal is as it was. */
function onTerminal(...words: readonly string[]): Talk {
  const command = [SWARMCTL, ...argvAt(0, ...words)].map((word) => `'${word}'`).join(" ");
  const script = `stty rows 33 cols 111; before=$(stty -g); ${command}; echo "code=$?"; [ "$(stty -g)" = "$before" ] && echo restored`;
  return new Talk("script", ["-qfec", script, "/dev/null"]);
}

/** Host pids of processes whose command line has `word`, swarmctl and its shells apart. */
function processes(word: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        const line = readFileSync(`/proc/${name}/cmdline`, "utf8").split("\0");
        return line.includes(word) && line[0] === "sleep" ? [Number(name)] : [];
      } catch {
        return [];
      }
    });
}

const gone = (word: string) => eventually(() => expect(processes(word)).toEqual([]), { timeoutMs: 10_000 });
const runs = (word: string) => eventually(() => expect(processes(word)).toHaveLength(1), { timeoutMs: 10_000 });

describe("a script", () => {
  rootTest("gets exit code and streams, from either manager", async () => {
    for (const manager of [0, 1]) {
      const words = ["service", "exec", "box", "sh", "-c", "echo out; echo err >&2; exit 7"];
      expect(await cluster.swarmctlAt(manager, ...words)).toEqual({ stdout: "out\n", stderr: "err\n", code: 7 });
    }
    expect(await cluster.swarmctlAt(0, "task", "exec", "box.2", "hostname")).toMatchObject({ code: 0 });
    expect(await cluster.swarmctlAt(0, "service", "exec", "box", "nonesuch")).toEqual({
      stdout: "",
      stderr: 'swarmctl: exec: "nonesuch": executable file not found in $PATH\n',
      code: 127,
    });
    expect(await cluster.swarmctlAt(0, "service", "exec", "box", "/etc/passwd")).toMatchObject({ code: 126 });
  });

  rootTest("sends a mebibyte through cat and gets it back", async () => {
    const bytes = randomFillSync(Buffer.alloc(1 << 20));
    for (const manager of [0, 1]) {
      const talk = new Talk(SWARMCTL, argvAt(manager, "service", "exec", "-i", "box", "cat"));
      talk.child.stdin?.end(bytes);
      expect(await talk.ended).toBe(0);
      const sum = (data: Buffer) => createHash("sha256").update(data).digest("hex");
      expect(sum(talk.bytes)).toBe(sum(bytes));
    }
  });

  rootTest("says as whom, where and with what", async () => {
    const script = "id -u; id -g; pwd; echo $HOME $A; grep -E 'CapEff|NoNewPrivs' /proc/self/status";
    const words = ["-u", "app", "-w", "/tmp/..", "-e", "A=b", "box", "sh", "-c", script];
    expect((await cluster.swarmctlAt(0, "service", "exec", ...words)).stdout).toBe(
      "1000\n1001\n/\n/home/app b\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\n",
    );
    for (const [flags, message] of [
      [["-u", "nobody"], `user: no user "nobody"`],
      [["-w", "/nonesuch"], "working directory /nonesuch: no such directory"],
    ] as const) {
      const { code, stderr } = await cluster.swarmctlAt(0, "service", "exec", ...flags, "box", "true");
      expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining(message) });
    }
    // A wrong directory was not made.
    expect(await cluster.swarmctlAt(0, "service", "exec", "box", "ls", "/nonesuch")).toMatchObject({ code: 1 });
  });

  rootTest("that is killed takes its command along; -d leaves it", async () => {
    for (const [word, signal] of [
      ["7001", "SIGKILL"],
      ["7002", "SIGTERM"],
      ["7003", "SIGINT"],
    ] as const) {
      const talk = new Talk(SWARMCTL, argvAt(1, "service", "exec", "box", "sh", "-c", `sleep ${word} & wait`));
      await runs(word);
      talk.child.kill(signal);
      await talk.ended;
      await gone(word);
    }
    await cluster.swarmctl("service", "exec", "-d", "box", "sleep", "7004");
    await runs("7004");
  });
});

describe("a person", () => {
  rootTest("has a terminal: its size, its keys, its exit code; and it is given back as it was", async () => {
    const talk = onTerminal("service", "exec", "-it", "box", "sh");
    await talk.shows(/in box\.1 on node-1/);
    talk.type("stty size; tty; echo term=$TERM\r");
    await talk.shows(/33 111\r\n\/dev\/pts\/\d+\r\nterm=xterm/);
    talk.type("sleep 7010\r");
    await runs("7010");
    talk.type("\x03");
    await gone("7010");
    talk.type("exit 9\r");
    await talk.shows(/code=9\r\nrestored/);
    talk.child.stdin?.end();
    await talk.ended;
  });

  rootTest("leaves with the detach keys, and the command runs on", async () => {
    const talk = onTerminal("service", "exec", "-it", "box", "sleep", "7020");
    await runs("7020");
    talk.type("\x10\x11");
    await talk.shows(/code=0\r\nrestored/);
    talk.child.stdin?.end();
    await talk.ended;
    expect(processes("7020")).toHaveLength(1);
  });
});

rootTest("an agent that is killed ends its commands and says so; the containers run on", async () => {
  const before = await cluster.containers("node-1");
  const talk = new Talk(SWARMCTL, argvAt(0, "service", "exec", "box", "sleep", "7030"));
  await runs("7030");
  await cluster.end(cluster.agent("node-1"), "SIGKILL");
  expect(await talk.ended).toBe(1);
  expect(talk.stderr).toContain("lost node node-1");
  await gone("7030");
  // Detached ones go with the agent, too.
  await gone("7004");
  cluster.startAgent(cluster.host("node-1"));
  await cluster.nodesReady(1);
  expect(await cluster.containers("node-1")).toEqual(before);
  await eventually(
    async () => {
      expect(await cluster.swarmctlAt(1, "service", "exec", "box", "echo", "back")).toMatchObject({ stdout: "back\n" });
    },
    { timeoutMs: 10_000 },
  );
});
