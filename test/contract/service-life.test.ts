/**
 * Stop, start, restart, history, wait and the cluster's settings. Goal: scripts can trust the exit code, and a stopped
 * service comes back as it was. Method: the real dispatcher, wire, API, store and loops; nodes are played.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ControlPlane, startControlPlane } from "../control-plane.ts";
import { runSwarmctl } from "../swarmctl.ts";

let plane: ControlPlane;
beforeAll(async () => {
  plane = await startControlPlane({ nodes: 3 });
});
afterAll(() => plane[Symbol.asyncDispose]());

const swarmctl = (...argv: string[]) => runSwarmctl(argv, { environment: { SWARM_HOST: plane.host } });
const create = (name: string, image: string, ...flags: string[]) =>
  swarmctl("service", "create", "--name", name, "--update-monitor", "50ms", "-q", ...flags, image);
const listed = async (name: string) =>
  (await swarmctl("service", "ls", "-f", `name=${name}`, "--format", "{{.Replicas}}")).out.trim();

test("a stopped service keeps its replicas and its tasks' traces, and starts again", async () => {
  await create("web", "demo/web:1", "--replicas", "3");
  expect(await swarmctl("service", "stop", "web")).toEqual({ code: 0, out: "web\n", err: "" });
  expect(await listed("web")).toBe("0/0 (stopped)");
  const states = async () => (await swarmctl("service", "ps", "web", "--format", "{{.DesiredState}}")).out;
  expect(await states()).toBe("Shutdown\nShutdown\nShutdown\n");
  // A change while it is stopped waits for the start.
  expect(await swarmctl("service", "scale", "-d", "web=2")).toMatchObject({ code: 0 });
  expect(await swarmctl("wait", "service", "--for", "running", "web")).toMatchObject({
    code: 1,
    err: "swarmctl: service web: is stopped; see service start\n",
  });
  expect(await swarmctl("service", "update", "-q", "--env-add", "A=1", "web")).toMatchObject({ code: 0, err: "" });
  expect(await swarmctl("service", "rollback", "-q", "web")).toMatchObject({ code: 0, err: "" });
  expect(await swarmctl("service", "start", "-q", "web")).toEqual({ code: 0, out: "web\n", err: "" });
  expect(await listed("web")).toBe("2/2");
  expect(await swarmctl("service", "start", "-d", "web")).toMatchObject({ code: 0 });
  await swarmctl("service", "rm", "web");
});

test("restart replaces every task and says so in the history", async () => {
  await create("again", "demo/web:1", "--replicas", "2", "--update-delay", "0s");
  const ids = async () => {
    const { out } = await swarmctl("service", "ps", "-q", "-f", "desired-state=running", "again");
    return out.split("\n").filter(Boolean);
  };
  const before = await ids();
  expect(await swarmctl("service", "restart", "-q", "again")).toMatchObject({ code: 0, err: "" });
  expect((await ids()).filter((id) => before.includes(id))).toEqual([]);
  await swarmctl("service", "update", "-d", "--image", "demo/web:2", "--env-add", "A=1", "again");
  const history = await swarmctl(
    "service",
    "history",
    "--no-trunc",
    "again",
    "--format",
    "{{.Version}} {{.Current}} {{.Changes}}",
  );
  expect(history.out.split("\n")).toEqual([
    expect.stringMatching(
      /^3 true task\.container\.env: \+ A=1; task\.container\.image: demo\/web:1\S* → demo\/web:2@sha256:[0-9a-f]{12}$/,
    ),
    "2 false task.forceUpdate: + 1",
    "1 false created",
    "",
  ]);
  expect((await swarmctl("service", "history", "again")).out).toMatch(/^VERSION +CREATED +IMAGE +CHANGES\n3 \* /);
  await swarmctl("service", "rm", "again");
});

describe("wait", () => {
  test("converged, complete, removed: 0", async () => {
    await create("w", "demo/web:1");
    expect(await swarmctl("wait", "service", "w")).toEqual({ code: 0, out: "", err: "" });
    await create("job", "demo/oneshot:1", "--restart-condition", "none");
    expect(await swarmctl("wait", "service", "job", "--for", "complete")).toEqual({ code: 0, out: "", err: "" });
    const waiting = swarmctl("wait", "service", "job", "--for", "removed", "--timeout", "20s");
    await swarmctl("service", "rm", "job");
    expect(await waiting).toEqual({ code: 0, out: "", err: "" });
    expect(await swarmctl("wait", "service", "job", "--for", "removed")).toMatchObject({ code: 0 });
    await swarmctl("service", "rm", "w");
  });

  test("what will not be: 1; what takes too long: 3, with the reason; a wrong word: 2", async () => {
    await create("bad", "demo/crashing:1", "--restart-condition", "none", "-d");
    const failed = await swarmctl("wait", "service", "bad");
    expect(failed).toMatchObject({ code: 1, out: "" });
    expect(failed.err).toMatch(/^swarmctl: service bad: task bad\.1 ended and is not restarted: failed: /);
    await create("slow", "demo/web:1", "--constraint", "node.labels.zone==x", "-d");
    const late = await swarmctl("wait", "service", "slow", "--timeout", "300ms");
    expect(late.code).toBe(3);
    expect(late.err).toMatch(
      /^swarmctl: timed out after 300ms: service slow: 0 of 1 tasks run as wanted \(1: no suitable/,
    );
    expect(await swarmctl("wait", "service", "slow", "--for", "happy")).toMatchObject({
      code: 2,
      err: 'swarmctl: invalid argument "happy" for --for: must be one of converged, running, complete, stopped, removed\n',
    });
    expect(await swarmctl("wait", "service", "nope")).toMatchObject({
      code: 1,
      err: "swarmctl: no such service: nope\n",
    });
    await swarmctl("service", "rm", "bad", "slow");
  });

  test("a stack by its label, and a node", async () => {
    const label = "com.docker.stack.namespace=shop";
    await create("shop_a", "demo/web:1", "--label", label, "-d");
    await create("shop_b", "demo/web:1", "--label", label, "-d");
    expect(await swarmctl("wait", "stack", "shop", "--timeout", "20s")).toEqual({ code: 0, out: "", err: "" });
    await swarmctl("service", "rm", "shop_a", "shop_b");
    expect(await swarmctl("wait", "stack", "shop")).toMatchObject({
      code: 1,
      err: "swarmctl: nothing found in stack: shop\n",
    });
    expect(await swarmctl("wait", "node", "node-1")).toEqual({ code: 0, out: "", err: "" });
    expect(await swarmctl("wait", "node", "node-1", "--for", "down", "--timeout", "100ms")).toEqual({
      code: 3,
      out: "",
      err: "swarmctl: timed out after 100ms: node node-1 is ready\n",
    });
    const node = [...plane.store.view.nodes.values()].find((each) => each.description?.hostname === "node-3");
    if (!node) throw new Error("no node-3");
    const waiting = swarmctl("wait", "node", "node-3", "--for", "down", "--timeout", "20s");
    await plane.store.commit([{ type: "delete", kind: "session", id: node.id }], { signal: plane.signal });
    expect(await waiting).toMatchObject({ code: 0 });
  });
});
