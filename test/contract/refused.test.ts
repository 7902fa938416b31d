/**
 * Docker's words that this cluster has not: each is refused with a reason (exit 1), never "unknown command". Goal: nobody
 * wonders whether it was mistyped. Method: the list of docker/cli's swarm-related commands and flags through the dispatcher.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import { type ControlPlane, startControlPlane } from "../control-plane.ts";
import { runSwarmctl } from "../swarmctl.ts";

let plane: ControlPlane;
beforeAll(async () => {
  plane = await startControlPlane({ nodes: 1 });
});
afterAll(() => plane[Symbol.asyncDispose]());
const swarmctl = (...argv: string[]) => runSwarmctl(argv, { environment: { SWARM_HOST: plane.host } });

test.each([
  "events --filter scope=swarm",
  "run -it busybox",
  "ps -a",
  "container ls",
  "exec -it web sh",
  "stop web",
  "stats --no-stream",
  "cp web:/x .",
  "top web",
  "build .",
  "system df",
  "system prune",
  "image prune",
  "image inspect web",
  "inspect web",
])("%s", async (line) => {
  const { code, out, err } = await swarmctl(...line.split(" "));
  expect([code, out]).toEqual([1, ""]);
  expect(err).toMatch(/^swarmctl: swarmctl has no [a-z -]+: .{20,}\n$/);
});

test("help is asked for in every way that Docker has", async () => {
  const [program, group, one] = await Promise.all([
    swarmctl("--help"),
    swarmctl("service"),
    swarmctl("service", "ls", "-h"),
  ]);
  expect([program.code, group.code, one.code]).toEqual([0, 0, 0]);
  expect(one.out).toContain("Usage:  swarmctl service ls");
  expect(await swarmctl("help")).toEqual(program);
  expect(await swarmctl("help", "service")).toEqual(group);
  expect(await swarmctl("service", "help")).toEqual(group);
  expect(await swarmctl("help", "service", "ls")).toEqual(one);
  expect(await swarmctl("service", "help", "ls")).toEqual(one);
  expect(one.out).toMatch(
    /\n\nList services\n\nAliases:\n {2}swarmctl service ls, swarmctl service list\n\nOptions:\n/,
  );
  expect((await swarmctl("service", "rm", "--help")).out).toMatch(/Aliases:\n {2}swarmctl service rm, [^\n]*\n$/);
  expect(await swarmctl("help", "nope")).toMatchObject({ code: 2 });
});

test("info answers what scripts ask of docker info", async () => {
  const format = "{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}} {{.Swarm.Nodes}}";
  expect((await swarmctl("info", "--format", format)).out).toBe("active true 1\n");
  expect((await swarmctl("system", "info", "-f", "{{.Swarm.Cluster.ID}}")).out).toMatch(/^[a-z0-9]{25}\n$/);
});

test("swarm update changes what can be changed and refuses the rest, every flag at once", async () => {
  expect(await swarmctl("swarm", "update", "--task-history-limit", "2", "--dispatcher-heartbeat", "2s")).toEqual({
    code: 0,
    out: "Swarm updated.\n",
    err: "",
  });
  expect(plane.store.view.cluster?.spec).toMatchObject({ taskHistoryLimit: 2, heartbeatPeriod: { seconds: 2n } });
  expect((await swarmctl("swarm", "update", "--snapshot-interval", "1", "--max-snapshots", "3")).err).toMatch(
    /^swarmctl: --max-snapshots: the store is etcd[^;]*; --snapshot-interval: the store is etcd/,
  );
  expect((await swarmctl("swarm", "update", "--external-ca", "protocol=cfssl,url=https://ca")).err).toMatch(
    /^swarmctl: --external-ca: certificates are signed by the managers, not by a CFSSL service: [^;]* --ca-cert FILE/,
  );
  expect(await swarmctl("swarm", "update")).toMatchObject({ code: 2 });
  expect(await swarmctl("swarm", "update", "--dispatcher-heartbeat", "1ms")).toMatchObject({
    code: 1,
    err: "swarmctl: heartbeat_period: must be between 100ms and 60s\n",
  });
});

test.each([
  ["servce ls", "unknown command: swarmctl servce (did you mean swarmctl service?)"],
  ["service lst", "unknown command: swarmctl service lst (did you mean swarmctl service ls?)"],
  ["service insp", "unknown command: swarmctl service insp (did you mean swarmctl service inspect?)"],
  ["service frobnicate", "unknown command: swarmctl service frobnicate (see swarmctl service --help)"],
  ["foo", "unknown command: swarmctl foo (see swarmctl --help)"],
])("no suggestion is better than a wild one: %s", async (line, message) => {
  expect(await swarmctl(...line.split(" "))).toEqual({ code: 2, out: "", err: `swarmctl: ${message}\n` });
});
