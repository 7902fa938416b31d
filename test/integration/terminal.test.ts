/**
 * Goal: a service's process is on a terminal, or its standard input stays open, as with Docker's flags and stack files; both
 * outlive their agent, and are told of in the logs. Method: a real manager and node, swarmctl as a process.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, onTestFinished } from "vitest";
import { eventually } from "../eventually.ts";
import { buildImage, busyboxFiles } from "../images.ts";
import { isRoot, rootTest } from "../privileges.ts";
import { file } from "../tar.ts";
import { TestCluster } from "./cluster.ts";

const SWARMCTL = new URL("../../cli/swarmctl", import.meta.url).pathname;
const FAST = ["--update-monitor", "200ms", "--restart-delay", "100ms"];
/** Says what it is on, waits, and takes a moment to end when it is told to. */
const SCRIPT = `tty; stty size; echo $TERM; id -u > /dev/tty; trap 'echo bye; exit 0' TERM; while true; do sleep 0.1; done`;
let cluster: TestCluster;

beforeAll(async () => {
  if (!isRoot) return;
  cluster = await TestCluster.start({ nodes: 1 });
  const image = buildImage({
    name: "demo/box:1",
    directory: cluster.folder("images"),
    layers: [{ files: [...busyboxFiles(), file("etc/passwd", "app:x:1000:1001::/:/bin/sh\n")] }],
    config: { Env: ["PATH=/bin"], Cmd: ["sh"], User: "app" },
  });
  await cluster.swarmctl("image", "load", image);
});
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

const logs = (service: string) => cluster.swarmctl("service", "logs", "--raw", service);
const shows = (service: string, text: string | RegExp) =>
  eventually(async () => expect(await logs(service)).toMatch(text), { timeoutMs: 10_000 });
const inspected = (service: string, field: string) =>
  cluster.swarmctl("service", "inspect", "-f", `{{.Spec.TaskTemplate.ContainerSpec.${field}}}`, service);

function follow(service: string): { readonly child: ChildProcess; readonly text: () => string } {
  const child = spawn(SWARMCTL, ["--host", `unix://${cluster.socket()}`, "service", "logs", "-f", "--raw", service], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  let text = "";
  child.stdout.on("data", (part: Buffer) => {
    text += part.toString();
  });
  return { child, text: () => text };
}

rootTest("create -t: a terminal of the user's own, its lines in the logs as they were written", async () => {
  await cluster.swarmctl("service", "create", "-t", "--name", "term", ...FAST, "demo/box:1", "sh", "-c", SCRIPT);
  await shows("term", /^\/dev\/pts\/0\r\n24 80\r\nxterm\r\n1000\r\n$/);
  expect(await inspected("term", "TTY")).toBe("true\n");
  expect(await cluster.swarmctl("service", "inspect", "--pretty", "term")).toMatch(/^ TTY:\ttrue$/m);
  expect(await cluster.swarmctl("service", "logs", "--grep", "^xterm$", "term")).toMatch(/\| xterm\r\n$/);
  const inside = await cluster.swarmctl("service", "exec", "term", "sh", "-c", "tty; readlink /proc/1/fd/0");
  expect(inside).toBe("not a tty\n/dev/pts/0\n");
});

rootTest("stack files: a shell is kept alive by tty, by stdin_open and by both, and by neither it ends", async () => {
  const path = join(cluster.folder("stacks"), "stack.yml");
  const restart = "stop_grace_period: 1s, deploy: { restart_policy: { condition: none } }";
  const service = (more: string) => `{ image: "demo/box:1", ${more}, ${restart} }`;
  writeFileSync(
    path,
    `services:
  both: ${service("stdin_open: true, tty: true")}
  tty: ${service("tty: true")}
  open: ${service("stdin_open: true, command: cat")}
  closed: ${service("command: sh -c 'cat; echo over; tty'")}
`,
  );
  expect(await cluster.swarmctl("stack", "config", "-c", path)).toMatch(/stdin_open: true\n.*\n {4}tty: true/);
  await cluster.swarmctl("stack", "deploy", "-d", "-c", path, "shells");
  await shows("shells_closed", /^over\nnot a tty\n$/);
  for (const name of ["both", "tty", "open"]) {
    await eventually(async () =>
      expect(await cluster.tasks(`shells_${name}`)).toEqual([expect.stringMatching(/Running$/)]),
    );
  }
  expect(await inspected("shells_both", "OpenStdin")).toBe("true\n");
  // It waits in read(2), and would read what is typed: a command inside finds the other way.
  const states = "grep -h State /proc/1/status";
  for (const name of ["both", "tty", "open"]) {
    await eventually(async () => {
      expect(await cluster.swarmctl("service", "exec", `shells_${name}`, "sh", "-c", states)).toMatch(/S \(sleeping\)/);
    });
  }
});

rootTest("the agent is killed: containers stay, and what they write to their terminals is still kept", async () => {
  const before = await cluster.containers("node-1");
  expect(before).toHaveLength(4);
  await cluster.end(cluster.agent("node-1"), "SIGKILL");
  cluster.startAgent(cluster.host("node-1"));
  await cluster.nodesReady(1);
  const followed = follow("term");
  await eventually(
    async () => {
      const say = await cluster.swarmctlAt(0, "service", "exec", "term", "sh", "-c", "echo after > /dev/console");
      expect(say).toMatchObject({ code: 0, stderr: "" });
    },
    { timeoutMs: 10_000 },
  );
  await eventually(() => expect(followed.text()).toContain("after\r\n"));
  expect(await cluster.containers("node-1")).toEqual(before);
});

rootTest("update --tty=false: the old task has its last word, the new one no terminal", async () => {
  await cluster.swarmctl("service", "update", "--tty=false", "term");
  await shows("term", /bye\r\n/);
  await shows("term", /not a tty\n/);
  expect(await cluster.swarmctl("service", "inspect", "--pretty", "term")).not.toContain("TTY");
  expect(await cluster.swarmctl("service", "history", "term")).toContain("task.container.tty: - true");
  await cluster.swarmctl("stack", "rm", "--detach=false", "shells");
  await cluster.swarmctl("service", "rm", "term");
  await eventually(async () => expect(await cluster.containers("node-1")).toEqual([]), { timeoutMs: 20_000 });
});
