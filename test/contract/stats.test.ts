/**
 * Goal: `service stats`, `task stats` and `node stats` show every running task that is asked for, with docker stats' words, and
 * say which nodes they could not ask. Method: commands whole, over a control plane whose nodes play the counters.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SwarmError } from "../../common/base/error.ts";
import { type ControlPlane, startControlPlane } from "../control-plane.ts";
import { runSwarmctl, type SwarmctlOptions } from "../swarmctl.ts";

let plane: ControlPlane;
const swarmctl = (line: string, options: SwarmctlOptions = {}) =>
  runSwarmctl(line.split(" "), { ...options, environment: { SWARM_HOST: plane.host } });
/** Short looks: what is played is the same at any time. */
const once = "--no-stream --period 200ms";

beforeAll(async () => {
  plane = await startControlPlane({ nodes: 2 });
  for (const line of [
    "--name web --replicas 11 demo/web:1",
    "--name bare --network host --constraint node.hostname==node-2 demo/web:1",
    "--name once --restart-condition none demo/oneshot:1",
  ]) {
    await swarmctl(`service create -d --no-resolve-image ${line}`);
  }
  for (const name of ["web", "bare"]) {
    expect(await swarmctl(`wait service ${name} --for converged --timeout 20s`)).toMatchObject({ code: 0 });
  }
  expect(await swarmctl("wait service once --for complete --timeout 20s")).toMatchObject({ code: 0 });
});
afterAll(() => plane[Symbol.asyncDispose]());

const lines = (text: string) => text.split("\n").filter(Boolean);

describe("one table", () => {
  test("has docker stats' columns and the node, in order of the slots", async () => {
    const { code, out, err } = await swarmctl(`service stats ${once} web`);
    expect([code, err]).toEqual([0, ""]);
    const [head, first, ...others] = lines(out);
    expect(head?.split(/ {2,}/)).toEqual([
      ...["ID", "NAME", "NODE", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"],
    ]);
    expect(first).toMatch(
      /^[a-z0-9]{12} +web\.1 +node-[12] +(49|50)\.\d\d% +12MiB \/ 64MiB +18\.75% +1\.43kB \/ 850B +4\.1MB \/ 0B +3$/,
    );
    expect(others.map((line) => line.split(/ +/)[1])).toEqual(
      [2, 3, 4, 5, 6, 7, 8, 9, 10, 11].map((slot) => `web.${slot}`),
    );
  });

  test.each([
    ["service stats", "web.3 bare", ["bare.1", "web.3"]],
    ["service stats", "web.3 web.4 web.3", ["web.3", "web.4"]],
    ["task stats", "web.10 bare.1", ["bare.1", "web.10"]],
    ["service stats", "once", []],
  ])("%s %s", async (command, words, names) => {
    const { code, out } = await swarmctl(`${command} ${once} --format {{.Name}} ${words}`);
    expect({ code, names: lines(out) }).toEqual({ code: 0, names });
  });

  test("of nodes: those that are named, or all", async () => {
    const all = await swarmctl(`node stats ${once} --format {{.Node}}`);
    expect(lines(all.out)).toHaveLength(12);
    const one = await swarmctl(`node stats ${once} --format {{.Node}} node-2`);
    expect(new Set(lines(one.out))).toEqual(new Set(["node-2"]));
    expect(lines(all.out).filter((node) => node === "node-2")).toEqual(lines(one.out));
  });

  test("in JSON, and in any other form; a task on the host's network has no link of its own", async () => {
    const { out } = await swarmctl(`service stats ${once} --no-trunc --format json bare`);
    expect(JSON.parse(out)).toEqual({
      ...{ Container: expect.stringMatching(/^[a-z0-9]{25}$/), ID: expect.stringMatching(/^[a-z0-9]{25}$/) },
      ...{ Name: "bare.1", Node: "node-2", CPUPerc: expect.stringMatching(/^(49|50)\.\d\d%$/), PIDs: "3" },
      ...{ MemUsage: "12MiB / 64MiB", MemPerc: "18.75%", NetIO: "--", BlockIO: "4.1MB / 0B" },
    });
    const format = "table {{.Name}}\\t{{.MemPerc}}";
    const table = await runSwarmctl(["service", "stats", ...once.split(" "), "--format", format, "bare"], {
      environment: { SWARM_HOST: plane.host },
    });
    expect(table.out).toBe("NAME      MEM %\nbare.1    18.75%\n");
  });

  test.each([
    ["service stats nonesuch", 1, "no such service or task: nonesuch"],
    ["task stats nonesuch", 1, "no such task: nonesuch"],
    ["node stats nonesuch", 1, "no such node: nonesuch"],
    ["task stats once.1", 1, /^swarmctl: task [a-z0-9]{25} is not running: it is complete\n$/],
    ["service stats --period 1ms web", 1, "period: must be between 200ms and 1h"],
    ["service stats --period x web", 2, 'invalid argument "x" for --period'],
    ["service stats --format {{.Nam web", 2, "--format: template: unclosed action"],
    ["service stats", 2, '"swarmctl service stats" requires at least 1 argument'],
  ])("%s is refused", async (line, code, message) => {
    const result = await swarmctl(line);
    expect(result).toMatchObject({ code, out: "" });
    expect(result.err).toMatch(message);
  });
});

/** Runs until `out` has `count` matches of `pattern`, then presses Ctrl-C. */
async function until(line: string, pattern: RegExp, count: number, options: SwarmctlOptions = {}) {
  const stop = new AbortController();
  return await swarmctl(line, {
    ...options,
    signal: stop.signal,
    onOut: (out) => {
      if ((out.match(pattern) ?? []).length >= count) stop.abort(new SwarmError("canceled", "interrupted"));
    },
  });
}

describe("a stream", () => {
  test("is table after table where nobody watches: no escape sequence, a processor's share from the second on", async () => {
    const { code, out, err } = await until("service stats --period 200ms bare", /PIDS\n.*\n/g, 3);
    expect([code, err]).toEqual([0, ""]);
    expect(out).not.toContain("\u001b");
    const shares = lines(out).flatMap((line) => /(\S+) +12MiB/.exec(line)?.[1] ?? []);
    expect(shares[0]).toBe("--");
    expect(shares.slice(1).every((share) => /^(49|50)\.\d\d%$/.test(share))).toBe(true);
  });

  test("is drawn in place on a terminal, and never lower than it", async () => {
    await swarmctl("service scale -d web=40");
    expect(await swarmctl("wait service web --for converged --timeout 20s")).toMatchObject({ code: 0 });
    const { code, out } = await until("service stats --period 200ms web", /PIDS/g, 2, { terminal: true });
    expect(code).toBe(0);
    const [cleared, first = "", second = ""] = out.split("\u001b[H");
    expect(cleared).toBe("\u001b[2J");
    for (const picture of [first, second]) {
      expect(picture.endsWith("\u001b[K\n\u001b[J")).toBe(true);
      const drawn = picture.split("\u001b[K\n").slice(0, -1);
      // Lines of more than 80 characters take two of the 25 rows.
      expect(drawn.map((line) => (line.length > 80 ? 2 : 1)).reduce((sum, rows) => sum + rows, 0)).toBeLessThan(25);
      expect(drawn.at(-1)).toBe("… and 30 more");
    }
  });

  test("follows tasks as they come", async () => {
    await swarmctl("service create -d --no-resolve-image --name grown demo/web:1");
    const grown = until("service stats --period 200ms --format {{.Name}} grown", /grown\.2/g, 1);
    await swarmctl("service scale -d grown=2");
    expect((await grown).out).toContain("grown.1\ngrown.2\n");
  });
});

test("a node that cannot be asked is named with its tasks, and the exit code says so", async () => {
  const node = plane.store.view.nodes.values().find(({ description }) => description?.hostname === "node-2");
  const session = plane.store.view.sessions.get(node?.id ?? "");
  if (!node || !session) throw new Error("no node-2");
  const all = await swarmctl(`service stats ${once} --format {{.Name}} web`);
  const there = lines((await swarmctl(`service stats ${once} --format {{.Name}}@{{.Node}} web`)).out)
    .filter((line) => line.endsWith("@node-2"))
    .map((line) => line.split("@")[0]);
  await plane.store.commit([{ type: "delete", kind: "session", id: node.id }], { signal: plane.signal });
  try {
    const { code, out, err } = await swarmctl(`service stats ${once} --format {{.Name}} web`);
    expect(code).toBe(1);
    expect(lines(out)).toEqual(lines(all.out).filter((name) => !there.includes(name)));
    const ten = `${there.slice(0, 10).join(", ")}${there.length > 10 ? ` and ${there.length - 10} more` : ""}`;
    expect(err).toBe(`swarmctl: node-2 cannot be asked (not connected): skipped ${ten}\n`);
    const named = await swarmctl(`node stats ${once} node-2`);
    expect(named).toMatchObject({ code: 1, err: expect.stringContaining("node-2 cannot be asked (not connected)") });
    expect(lines(named.out)).toHaveLength(1);
    // On a terminal it stands below the table.
    const watched = await until("node stats --period 200ms", /not connected/g, 2, { terminal: true });
    expect(watched).toMatchObject({ code: 0, err: "" });
  } finally {
    await plane.store.commit([{ type: "create", kind: "session", object: session }], { signal: plane.signal });
  }
});
