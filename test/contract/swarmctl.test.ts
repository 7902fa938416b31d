/**
 * swarmctl against the real API. Goal: what a person types gets Docker's answer, and bad input the right one (hardening §5,
 * cases 54-65 and 75-83). Method: the real command dispatcher, wire, API, store and loops; nodes are played
 * (`test/control-plane.ts`).
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ControlClient } from "../../cli/command.ts";
import { connect } from "../../cli/connect.ts";
import { run } from "../../cli/run.ts";
import { systemClock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import { timestampMs, toDuration } from "../../common/model/duration.ts";
import { UpdateStatus_State } from "../../proto/gen/swarm/v1/types_pb.js";
import { type ControlPlane, startControlPlane } from "../control-plane.ts";
import { eventually } from "../eventually.ts";
import { buildImage } from "../images.ts";

interface Result {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

let plane: ControlPlane;
let client: ControlClient;
const folder = mkdtempSync(join(tmpdir(), "swarmctl-test-"));

beforeAll(async () => {
  plane = await startControlPlane({ nodes: 3 });
  client = await connect([plane.host], { clock: systemClock, signal: plane.signal });
});
afterAll(async () => {
  await plane[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

/** One command in this process. `signal` plays SIGINT. */
async function swarmctl(
  argv: readonly string[],
  options: { signal?: AbortSignal; terminal?: boolean } = {},
): Promise<Result> {
  let [out, err] = ["", ""];
  const io = {
    out: (text: string) => {
      out += text;
    },
    err: (text: string) => {
      err += text;
    },
    terminal: options.terminal ?? false,
    columns: 80,
    environment: { SWARM_HOST: plane.host, HOME: folder },
    readBytes: () => new Uint8Array(),
    readFile: () => "",
    exists: () => false,
    stdin: Readable.from([]),
    console: {
      write: async () => {},
      size: () => ({ rows: 0, columns: 0 }),
      onResize: () => () => {},
      setRaw: () => {},
    },
  };
  const signal = options.signal ?? new AbortController().signal;
  const code = await run(argv, {
    io,
    clock: systemClock,
    signal,
    connect: (hosts, until) => connect(hosts, { clock: systemClock, signal: until }),
  });
  return { code, out, err };
}

/** `name` is a service that has converged. */
function create(name: string, ...flags: string[]): Promise<Result> {
  return swarmctl([
    "service",
    "create",
    "--name",
    name,
    "--update-monitor",
    "50ms",
    "--rollback-monitor",
    "50ms",
    ...flags,
    "demo/web:1",
  ]);
}

describe("the way it is meant", () => {
  test("create, list, scale, update, roll back, remove", async () => {
    const created = await create("main", "--replicas", "3", "-p", "8080:80", "-q");
    expect(created).toMatchObject({ code: 0, err: "" });
    expect(created.out).toMatch(/^[a-z0-9]{25}\n$/);
    const listed = await swarmctl([
      "service",
      "ls",
      "-f",
      "name=main",
      "--format",
      "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}} {{.Ports}}",
    ]);
    expect(listed.out).toBe("main replicated 3/3 demo/web:1 *:8080->80/tcp\n");

    const scaled = await swarmctl(["service", "scale", "main=5"]);
    expect(scaled.code).toBe(0);
    expect(scaled.out).toMatch(
      /^main scaled to 5\n[\s\S]*overall progress: 5 out of 5 tasks\nverify: Service main converged\n$/,
    );

    const updated = await swarmctl(
      ["service", "update", "--image", "demo/web:2", "--update-parallelism", "0", "main"],
      { terminal: true },
    );
    expect(updated.code).toBe(0);
    expect(updated.out).toContain("verify: Service main converged");
    const ps = await swarmctl(["service", "ps", "main", "--format", "{{.Name}} {{.Image}} {{.DesiredState}}"]);
    expect(ps.out.split("\n").slice(0, 2)).toEqual(["main.1 demo/web:2 Running", " \\_ main.1 demo/web:1 Shutdown"]);

    expect(await swarmctl(["service", "rollback", "-q", "main"])).toMatchObject({ code: 0, err: "" });
    const image = [
      "service",
      "inspect",
      "-f",
      "{{.Spec.TaskTemplate.ContainerSpec.Image}} {{.PreviousSpec.TaskTemplate.ContainerSpec.Image}}",
      "main",
    ];
    expect((await swarmctl(image)).out).toMatch(/^demo\/web:1@sha256:[0-9a-f]{64} demo\/web:2@sha256:[0-9a-f]{64}\n$/);
    expect((await swarmctl(["service", "logs", "--no-task-ids", "main"])).out).toMatch(
      /^main\.\d@node-\d {4}\| hello\n/,
    );

    expect(await swarmctl(["service", "rm", "main"])).toEqual({ code: 0, out: "main\n", err: "" });
    await eventually(() =>
      expect([...plane.store.view.tasks.values()].filter(({ desiredState }) => desiredState <= 512)).toEqual([]),
    );
  });

  test("global services run on each node, and follow a drain", async () => {
    expect(await create("everywhere", "--mode", "global", "-q")).toMatchObject({ code: 0 });
    await swarmctl(["node", "update", "--availability", "drain", "node-3"]);
    const replicas = () => swarmctl(["service", "ls", "-f", "name=everywhere", "--format", "{{.Replicas}}"]);
    await eventually(async () => expect((await replicas()).out).toBe("2/2\n"));
    await swarmctl(["node", "update", "--availability", "active", "node-3"]);
    await eventually(async () => expect((await replicas()).out).toBe("3/3\n"));
    await swarmctl(["service", "rm", "everywhere"]);
  });

  test("an update that changes nothing makes no new version", async () => {
    await create("same", "-q");
    const version = () => plane.store.view.serviceByName("same")?.specVersion;
    await swarmctl(["service", "update", "-q", "--image", "demo/web:1", "same"]);
    expect(version()).toBe(1n);
    await swarmctl(["service", "update", "-q", "--label-add", "a=b", "same"]);
    expect([version(), plane.store.view.serviceByName("same")?.taskVersion]).toEqual([2n, 1n]);
    await swarmctl(["service", "rm", "same"]);
  });

  test("images: load, list, remove", async () => {
    const image = buildImage({
      name: "demo/loaded:1",
      layers: [{ files: [] }],
      config: { Cmd: ["x"] },
      directory: folder,
    });
    expect(await swarmctl(["image", "load", "-i", image])).toEqual({
      code: 0,
      out: "Loaded image: demo/loaded:1\n",
      err: "",
    });
    expect((await swarmctl(["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"])).out).toBe("demo/loaded:1\n");
    const filtered = (reference: string) =>
      swarmctl(["image", "ls", "-f", `reference=${reference}`, "--format", "{{.Tag}}"]);
    expect((await filtered("demo/*")).out).toBe("1\n");
    expect((await filtered("*")).out).toBe("");
    const removed = await swarmctl(["image", "rm", "demo/loaded:1"]);
    expect(removed.out).toMatch(/^Untagged: demo\/loaded:1\nDeleted: sha256:[a-f0-9]{64}\n$/);
    expect(await swarmctl(["image", "rm", "demo/loaded:1"])).toEqual({
      code: 1,
      out: "",
      err: "swarmctl: no such image: demo/loaded:1\n",
    });
  });
});

describe("deploys that fail say why", () => {
  test.each([
    [
      ["--restart-delay", "10ms", "demo/missing:1"],
      /service bad: task bad\.1 failed \d+ times: rejected: no such image: registry says 404\n$/,
    ],
    [
      ["--restart-condition", "none", "demo/crashing:1"],
      /service bad: task bad\.1 ended and is not restarted: failed: task: non-zero exit \(3\)\n$/,
    ],
    [
      ["--constraint", "node.labels.zone==x", "--timeout", "300ms", "demo/web:1"],
      /not converged within \d+m?s; [\s\S]*no suitable node \(scheduling constraints not satisfied on 3 nodes\)\n$/,
    ],
  ])("%j", async (argv, err) => {
    const result = await swarmctl(["service", "create", "--name", "bad", "--update-monitor", "50ms", ...argv]);
    await swarmctl(["service", "rm", "bad"]);
    expect(result.err).toMatch(err);
    expect(result.code).toBe(1);
  });

  test("an update that is paused", async () => {
    await create("worse", "-q");
    const result = await swarmctl(["service", "update", "-q", "--image", "demo/crashing:1", "worse"]);
    await swarmctl(["service", "rm", "worse"]);
    expect(result).toMatchObject({ code: 1 });
    expect(result.err).toMatch(/^swarmctl: service worse: service update paused: /);
  });

  test("an update that changes nothing lets a paused one go on, and minds no rollback before it", async () => {
    await create("again", "-q", "--replicas", "2");
    const update = (...flags: string[]) => swarmctl(["service", "update", "-q", ...flags, "again"]);
    const status = () => plane.store.view.serviceByName("again")?.updateStatus;
    await update("--image", "demo/crashing:1");
    const [first, version] = [status(), plane.store.view.serviceByName("again")?.specVersion];
    expect(first?.state).toBe(UpdateStatus_State.PAUSED);

    const second = await update();
    expect(second).toMatchObject({ code: 1 });
    expect(second.err).toMatch(/^swarmctl: service again: service update paused: .*; task again\.\d failed: /);
    expect(timestampMs(status()?.startedAt)).toBeGreaterThan(timestampMs(first?.startedAt) ?? Number.NaN);
    expect(plane.store.view.serviceByName("again")?.specVersion).toBe(version);

    expect(await swarmctl(["service", "rollback", "-q", "again"])).toMatchObject({ code: 0 });
    expect(status()?.state).toBe(UpdateStatus_State.ROLLBACK_COMPLETED);
    expect(await update()).toMatchObject({ code: 0, err: "" });
    await swarmctl(["service", "rm", "again"]);
  });

  test("a one-shot that ends well is done", async () => {
    const argv = ["--restart-condition", "none", "--update-monitor", "50ms", "-q", "demo/oneshot:1"];
    expect(await swarmctl(["service", "create", "--name", "once", ...argv])).toMatchObject({ code: 0, err: "" });
    await swarmctl(["service", "rm", "once"]);
  });
});

describe("bad command lines (54-65)", () => {
  test.each<[string, string[], number, string | RegExp]>([
    ["54 group", ["servce", "ls"], 2, "unknown command: swarmctl servce (did you mean swarmctl service?)"],
    ["54 command", ["service", "lst"], 2, "unknown command: swarmctl service lst (did you mean swarmctl service ls?)"],
    ["54 flag", ["service", "create", "--replcas", "3", "x"], 2, "unknown flag: --replcas (did you mean --replicas?)"],
    [
      "55 missing",
      ["service", "ps"],
      2,
      '"swarmctl service ps" requires at least 1 argument. Usage: swarmctl service ps [OPTIONS] SERVICE [SERVICE...]',
    ],
    ["55 too many", ["service", "ls", "x"], 2, /accepts no arguments/],
    ["56 negative", ["service", "scale", "a=1", "web=-1"], 2, /^invalid replicas in 'web=-1': /],
    ["56 word", ["service", "scale", "web=abc"], 2, /^invalid replicas in 'web=abc': /],
    ["56 bare", ["service", "scale", "web"], 2, "invalid scale specifier 'web'. Usage: SERVICE=REPLICAS"],
    [
      "59",
      ["-H", "unix:///nowhere/a.sock,unix:///nowhere/b.sock", "service", "ls"],
      1,
      "cannot reach a manager; tried unix:///nowhere/a.sock (ENOENT), unix:///nowhere/b.sock (ENOENT). Is swarm-manager running?",
    ],
    ["59 bad host", ["-H", "ftp://x", "service", "ls"], 2, /^invalid --host "ftp:\/\/x"/],
    [
      "64 newline",
      ["service", "create", "--name", "a\nb", "x"],
      1,
      'name: name must be valid as a DNS name component: "a\\nb"',
    ],
    ["64 ESC", ["service", "inspect", "\u001b[2J"], 1, `"\\u001b[2J" is not a service's id or name`],
    [
      "64 long",
      ["service", "create", "--name", "x".repeat(10_000), "x"],
      1,
      "name: name must be 63 characters or fewer",
    ],
    ["65", ["service", "ps", "nope"], 1, "no such service: nope"],
    ["bad filter", ["service", "ls", "-f", "colour=red"], 2, "invalid filter 'colour': one of id, label, mode, name"],
    [
      "all fields at once",
      ["service", "create", "--name", "a b", "--limit-memory", "1M", "A"],
      1,
      /^name: .*; image: .*; resources\.limits\.memory: .*$/,
    ],
  ])("%s", async (_, argv, code, message) => {
    const result = await swarmctl(argv);
    expect(result).toMatchObject({ code, out: "" });
    expect(result.err).toMatch(/^swarmctl: [^\n]*\n$/);
    const said = result.err.slice("swarmctl: ".length, -1);
    if (typeof message === "string") expect(said).toBe(message);
    else expect(said).toMatch(message);
  });

  test("56 nothing is scaled when one service is missing", async () => {
    await create("half", "-q");
    expect(await swarmctl(["service", "scale", "half=3", "nope=1"])).toMatchObject({
      code: 1,
      err: "swarmctl: no such service: nope\n",
    });
    expect((await swarmctl(["service", "ls", "-f", "name=half", "--format", "{{.Replicas}}"])).out).toBe("1/1\n");
    await swarmctl(["service", "rm", "half"]);
  });

  test("57, 58 the whole id, then the name, then a unique prefix", async () => {
    const ids = [];
    for (const name of ["r1", "r2"]) ids.push((await create(name, "-d")).out.trim());
    const [first = "", second = ""] = ids;
    const prefix = first.slice(0, 8);
    expect((await swarmctl(["service", "inspect", "-f", "{{.Spec.Name}}", prefix])).out).toBe("r1\n");
    // A service whose name is the beginning of the other's id.
    await create(prefix, "-d");
    expect((await swarmctl(["service", "inspect", "-f", "{{.ID}}", first])).out).toBe(`${first}\n`);
    expect((await swarmctl(["service", "inspect", "-f", "{{.Spec.Name}}", prefix])).out).toBe(`${prefix}\n`);
    const { services, tasks } = plane.store.view;
    const count = (ids: Iterable<string>, letter: string) => [...ids].filter((id) => id.startsWith(letter)).length;
    // A letter with which several tasks begin; one that a service begins with means the service.
    const shared = [...new Set([...tasks.keys()].map((id) => id.slice(0, 1)))].find(
      (letter) => count(tasks.keys(), letter) > 1 && count(services.keys(), letter) === 0,
    );
    if (shared !== undefined) expect((await swarmctl(["service", "logs", shared])).err).toMatch(/multiple matches: /);
    await swarmctl(["service", "rm", first, second, prefix]);
  });

  test("62 a closed pipe ends it silently; 65 a bad field is named", async () => {
    const program = new URL("../../cli/swarmctl", import.meta.url).pathname;
    const child = spawn(program, ["service", "create", "--help"], { stdio: ["ignore", "pipe", "pipe"] });
    child.stdout.destroy();
    let err = "";
    child.stderr.on("data", (chunk) => {
      err += chunk;
    });
    const [code] = await once(child, "close");
    expect([code, err]).toEqual([0, ""]);
    await create("f", "-d");
    const bad = await swarmctl(["service", "ls", "--format", "{{.Nope}}"]);
    expect(bad).toMatchObject({ code: 2, out: "" });
    expect(bad.err).toMatch(/can't evaluate field Nope \(fields: ID, Name, /);
    await swarmctl(["service", "rm", "f"]);
  });

  test("63 an interrupt stops the waiting, not the change", async () => {
    const interrupt = new AbortController();
    const argv = ["service", "create", "--name", "slow", "--constraint", "node.labels.zone==x", "demo/web:1"];
    const waiting = swarmctl(argv, { signal: interrupt.signal });
    await eventually(() => expect(plane.store.view.serviceByName("slow")).toBeDefined());
    interrupt.abort(new SwarmError("canceled", "interrupted"));
    const { code, err } = await waiting;
    expect(code).toBe(130);
    expect(err).toMatch(/^Operation continuing in background: the change to slow stays\./);
    expect(await swarmctl(["service", "rm", "slow"])).toMatchObject({ code: 0 });
  });
});

describe("bad calls (75-83)", () => {
  /** The code and message of a call that is refused. */
  async function refusal(call: Promise<unknown>): Promise<string> {
    const reason = await call.then(
      () => new Error("was taken"),
      (failure: unknown) => failure,
    );
    return reason instanceof SwarmError ? `${reason.code}: ${reason.message}` : String(reason);
  }
  const spec = { name: "api", task: { container: { image: "demo/web:1" } } };

  test.each(["", "x".repeat(65_536), "../x", "a\0b"])("75 bad id %#", async (id) => {
    expect(await refusal(client.removeService({ serviceId: id }))).toMatch(/^invalid_argument: service_id: /);
    expect(await refusal(client.removeNode({ nodeId: id }))).toMatch(/^invalid_argument: node_id: /);
  });

  test("76 an id that nothing has", async () => {
    const id = "0".repeat(25);
    expect(await refusal(client.removeService({ serviceId: id }))).toBe(`not_found: no such service: ${id}`);
    expect(await refusal(client.updateNode({ nodeId: id, spec: {} }))).toBe(`not_found: no such node: ${id}`);
  });

  test("77, 78 a taken name; an old version; rename and change of mode", async () => {
    const { service } = await client.createService({ spec });
    const id = service?.service?.id ?? "";
    expect(await refusal(client.createService({ spec }))).toBe(`already_exists: service name "api" is in use (${id})`);
    expect(await refusal(client.updateService({ serviceId: id, version: 1n, spec }))).toMatch(
      /^aborted: update out of sequence: service api /,
    );
    const now = () => plane.store.view.services.get(id)?.meta?.version ?? 0n;
    await eventually(async () => {
      const renamed = client.updateService({ serviceId: id, version: now(), spec: { ...spec, name: "other" } });
      expect(await refusal(renamed)).toBe("unimplemented: renaming services is not supported: api");
    });
    const global = { ...spec, mode: { mode: { case: "global" as const, value: {} } } };
    await eventually(async () => {
      expect(await refusal(client.updateService({ serviceId: id, version: now(), spec: global }))).toBe(
        "unimplemented: service mode change is not allowed: api",
      );
    });
    await eventually(async () => {
      expect(await refusal(client.updateService({ serviceId: id, version: now(), rollback: true }))).toMatch(
        /^failed_precondition: service api does not have a previous spec/,
      );
    });
    await client.removeService({ serviceId: id });
  });

  test("81 a node that is ready stays, unless forced", async () => {
    const { nodes } = await client.listNodes({ references: ["node-2"] });
    const nodeId = nodes[0]?.id ?? "";
    expect(await refusal(client.removeNode({ nodeId }))).toBe(
      `failed_precondition: node ${nodeId} is not down and can't be removed`,
    );
  });

  test("83 negative, endless, NaN", async () => {
    const bad = {
      ...spec,
      update: { delay: toDuration(-1), monitor: { seconds: 2n ** 62n }, maxFailureRatio: Number.NaN },
    };
    expect(await refusal(client.createService({ spec: bad }))).toBe(
      "invalid_argument: update_config.delay: cannot be negative; update_config.monitor: is too long; update_config.max_failure_ratio: cannot be less than 0 or bigger than 1",
    );
  });

  test("a published port has one owner; a registry's token is never shown, and kept by updates that do not name it", async () => {
    const ports = { ports: [{ targetPort: 80, publishedPort: 9999 }] };
    const withToken = { container: { image: "demo/web:1", pullOptions: { registryAuth: "secret" } } };
    const { service } = await client.createService({ spec: { name: "first", task: withToken, endpoint: ports } });
    const id = service?.service?.id ?? "";
    expect(service?.spec?.task?.container?.pullOptions).toBeUndefined();
    expect(await refusal(client.createService({ spec: { ...spec, endpoint: ports } }))).toBe(
      `invalid_argument: ports[0]: port '9999' is already in use by service 'first' (${id}) as an ingress port`,
    );
    await swarmctl(["service", "update", "-d", "--label-add", "a=b", "first"]);
    const kept = plane.store.view.specVersion(id, 2n)?.spec?.task?.container?.pullOptions?.registryAuth;
    expect(kept).toBe("secret");
    await swarmctl(["service", "update", "-d", "--image", "evil.example.com/web:1", "first"]);
    expect(plane.store.view.specVersion(id, 3n)?.spec?.task?.container?.pullOptions).toBeUndefined();
    const versions = await client.listSpecVersions({ serviceId: id });
    expect(versions.versions.map(({ spec: shown }) => shown?.task?.container?.pullOptions)).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    await client.removeService({ serviceId: id });
    expect(plane.store.view.specVersions(id)).toEqual([]);
  });
});
