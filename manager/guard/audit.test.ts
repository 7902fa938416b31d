/**
 * Goal: what is changed is written down, whoever changed it, and nothing that must stay secret with it. Method: the tables against
 * each other, requests full of secrets, and a real file that is filled, cut short and taken away.
 */
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { systemClock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import { FakeClock } from "../../common/base/fake-clock.ts";
import type { ClusterId, NodeId } from "../../common/base/id.ts";
import { type Logger, silentLogger } from "../../common/base/logger.ts";
import { toTimestamp } from "../../common/model/duration.ts";
import type { Peer, PeerIdentity } from "../../common/rpc/service.ts";
import { type AuditRecord, AuditRecordSchema } from "../../proto/gen/swarm/v1/audit_pb.js";
import { Control } from "../../proto/gen/swarm/v1/control_pb.js";
import { ServiceSchema, SpecVersionSchema, TaskSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { ServiceSpecSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { callersOf } from "../access.ts";
import { versionId } from "../store/kinds.ts";
import { ViewState } from "../store/view.ts";
import { Audit } from "./audit.ts";
import { AuditFile } from "./audit-file.ts";
import { CHANGES, isChange } from "./changes.ts";
import type { MethodName, Request } from "./rules.ts";

const clusterId = "c".repeat(25) as ClusterId;
const id = (digit: string) => digit.repeat(25);

describe("which methods are changes", () => {
  // What only some may read, and what asks which blobs are missing.
  const READS = ["listNodes", "listUsers", "listAudit", "missingBlobs"];

  test.each(Control.methods)("$name: whatever a viewer may not call, but for some lists", (method) => {
    const isRead = callersOf(method).includes("viewer") || READS.includes(method.localName);
    expect(isChange(method)).toBe(!isRead);
  });
});

describe("what is written of a request", () => {
  const view = new ViewState();
  const spec = create(ServiceSpecSchema, { name: "web", task: { container: { env: ["OLD=1"] } } });
  view.put("service", id("s"), create(ServiceSchema, { id: id("s"), name: "web", specVersion: 1n }), 1);
  view.put("spec", versionId(id("s"), 1n), create(SpecVersionSchema, { serviceId: id("s"), version: 1n, spec }), 1);
  view.put("task", id("t"), create(TaskSchema, { id: id("t"), serviceId: id("s"), slot: 2 }), 1);

  const SECRET = "hunter2";
  const what = <M extends MethodName>(method: M, request: MessageInitShape<(typeof Control)["method"][M]["input"]>) => {
    const asked = create(Control.method[method].input, request) as Request<M>;
    const told = CHANGES[method]?.(view, asked);
    expect(JSON.stringify(told)).not.toContain(SECRET);
    return told;
  };
  const full = {
    name: "web",
    labels: { a: SECRET },
    task: {
      container: {
        image: "x",
        env: [`TOKEN=${SECRET}`],
        args: [SECRET],
        labels: { b: SECRET },
        pullOptions: { registryAuth: SECRET },
      },
    },
  };

  test("services: which fields, never what is in them", () => {
    expect(what("createService", { spec: full })).toEqual({ kind: "service", name: "web" });
    expect(what("updateService", { serviceId: id("s"), spec: full })).toEqual({
      kind: "service",
      id: id("s"),
      name: "web",
      detail: "args, env.OLD, env.TOKEN, image, labels.a, labels.b, registryAuth",
    });
    expect(what("updateService", { serviceId: id("s"), rollback: true })).toMatchObject({ detail: "rollback" });
  });

  test("contents, stacks, commands, keys", () => {
    expect(what("createSecret", { name: "key", data: Buffer.from(SECRET) })).toEqual({ kind: "secret", name: "key" });
    expect(what("updateConfig", { id: id("x"), data: Buffer.from(SECRET) })).toMatchObject({ kind: "config" });
    const stack = { name: "shop", services: [full], secrets: [{ name: "s", data: Buffer.from(SECRET) }] };
    expect(what("applyStack", { stack: { spec: stack, prune: true } })).toMatchObject({
      name: "shop",
      detail: "prune",
    });
    const start = { taskId: id("t"), args: ["mysql", `-p${SECRET}`], env: [`P=${SECRET}`], user: "root" };
    expect(what("exec", { content: { case: "start", value: start } })).toEqual({
      kind: "task",
      id: id("t"),
      name: "web.2",
      detail: "mysql as root",
    });
    expect(what("getJoinTokens", {})).toEqual({ kind: "join token", detail: "read" });
    expect(what("getJoinTokens", { rotate: 1 })).toMatchObject({ detail: "rotate manager" });
    expect(what("createUser", { name: "ci", role: 2, stackPrefixes: ["shop"], certificateRequest: SECRET })).toEqual({
      kind: "user",
      name: "ci",
      detail: "deployer shop",
    });
  });
});

function recorder() {
  const clock = new FakeClock();
  const records: AuditRecord[] = [];
  const lines: unknown[] = [];
  const logger = { ...silentLogger, info: (fields: unknown) => lines.push(fields) } as unknown as Logger;
  const store = { write: (record: AuditRecord) => records.push(record), read: async () => records };
  const view = { revision: 7, byName: () => ({ id: id("f") }) } as unknown as ViewState;
  return { clock, records, lines, audit: new Audit({ view, clock, logger, managerId: "m", store }) };
}

describe("who", () => {
  test.each<[PeerIdentity | undefined, Partial<AuditRecord>]>([
    [
      { kind: "user", name: "ci", role: "swarm-deployer", clusterId, serial: "5e", notAfterMs: 0 },
      { who: "user ci", role: "deployer", serial: "5e" },
    ],
    [{ kind: "host" }, { who: "host", role: "", from: "unix" }],
    [{ kind: "operator", name: "CN=alice" }, { who: "operator CN=alice" }],
    [
      { kind: "node", nodeId: "n1" as NodeId, role: "swarm-worker", clusterId },
      { who: "node n1", role: "worker" },
    ],
    [undefined, { who: "join token" }],
  ])("%j", (identity, expected) => {
    const { audit, records, lines } = recorder();
    const peer: Peer = { address: "ipv4:10.0.0.7:41234", ...(identity && { identity }) };
    audit.record(
      { peer, method: "CreateSecret", what: { kind: "secret", name: "k" }, who: "join token" },
      { result: "ok" },
    );
    const common = { from: "10.0.0.7:41234", kind: "secret", name: "k", id: id("f"), result: "ok", managerId: "m" };
    expect(records).toMatchObject([{ ...common, ...expected, revision: 7n }]);
    expect(lines).toMatchObject([{ audit: true, ...common, ...expected, revision: 7 }]);
  });
});

test("a failure is told by its code; why, only where the message is ours alone", () => {
  const { audit, records } = recorder();
  const change = { peer: { address: "a" }, method: "M", what: { kind: "service", name: "x".repeat(999) } };
  audit.record(change, { failure: new SwarmError("permission_denied", "user ci is confined") });
  audit.record(change, { failure: new SwarmError("invalid_argument", "env[0]: TOKEN=hunter2 is no name") });
  audit.record(change, { failure: new TypeError("a bug with hunter2") });
  expect(records.map(({ result, reason, name }) => [result, reason, name.length])).toEqual([
    ["permission_denied", "user ci is confined", 255],
    ["invalid_argument", "", 255],
    ["internal", "", 255],
  ]);
});

test("failures cannot push changes out of the file: so many in a second, and the rest is counted", async () => {
  const { audit, records, clock } = recorder();
  const change = { peer: { address: "a" }, method: "M", what: { kind: "service" } };
  const failure = new SwarmError("permission_denied", "no");
  for (let count = 0; count < 50; count++) audit.record(change, { failure });
  expect(records).toHaveLength(20);
  audit.record(change, { result: "ok" });
  expect(records.at(-1)).toMatchObject({ result: "ok", omitted: 30 });
  await clock.advance(1_000);
  audit.record(change, { failure });
  expect(records.at(-1)).toMatchObject({ result: "permission_denied", omitted: 0 });
});

describe("the file", () => {
  let folder = "";
  let path = "";
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "audit-"));
    path = join(folder, "audit.log");
  });
  afterEach(() => rmSync(folder, { recursive: true }));
  const record = (number: number) =>
    create(AuditRecordSchema, { at: toTimestamp(1_000 * number), name: `n${number}`, revision: BigInt(number) });
  const names = async (file: AuditFile, limit = 100, sinceMs?: number) =>
    (await file.read({ limit, ...(sinceMs === undefined ? {} : { since: toTimestamp(sinceMs) }) } as never)).map(
      ({ name }) => name,
    );

  test("lines of JSON, its owner's only, read from the end", async () => {
    using file = new AuditFile({ path, clock: systemClock, logger: silentLogger });
    expect(await names(file)).toEqual([]);
    for (let number = 1; number <= 5; number++) file.write(record(number));
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(JSON.parse(readFileSync(path, "utf8").split("\n")[0] ?? "")).toEqual({
      at: "1970-01-01T00:00:01Z",
      name: "n1",
      revision: "1",
    });
    expect(await names(file)).toEqual(["n1", "n2", "n3", "n4", "n5"]);
    expect(await names(file, 2)).toEqual(["n4", "n5"]);
    expect(await names(file, 100, 4_000)).toEqual(["n4", "n5"]);
  });

  test("it goes on where it ended, and a line that was cut short spoils no other", async () => {
    {
      using file = new AuditFile({ path, clock: systemClock, logger: silentLogger });
      file.write(record(1));
    }
    writeFileSync(path, '{"name":"half', { flag: "a" });
    using file = new AuditFile({ path, clock: systemClock, logger: silentLogger });
    file.write(record(2));
    expect(await names(file)).toEqual(["n1", "n2"]);
  });

  test("full ones are kept, the oldest goes", async () => {
    using file = new AuditFile({ path, clock: systemClock, logger: silentLogger, bytesMax: 150, filesMax: 2 });
    for (let number = 1; number <= 20; number++) file.write(record(number));
    expect([existsSync(`${path}.1`), existsSync(`${path}.2`), existsSync(`${path}.3`)]).toEqual([true, true, false]);
    for (const each of [path, `${path}.1`, `${path}.2`]) expect(statSync(each).size).toBeLessThanOrEqual(150);
    const kept = await names(file);
    expect(kept.at(-1)).toBe("n20");
    expect(kept).toEqual(Array.from({ length: kept.length }, (_, index) => `n${21 - kept.length + index}`));
    expect(kept.length).toBeGreaterThanOrEqual(4);
  });

  test("what cannot be written is told once, and tried again", async () => {
    const errors: unknown[] = [];
    const logger = { ...silentLogger, error: (fields: unknown) => errors.push(fields) } as unknown as Logger;
    mkdirSync(path);
    using file = new AuditFile({ path, clock: systemClock, logger });
    file.write(record(1));
    file.write(record(2));
    expect(errors).toEqual([{ err: expect.objectContaining({ code: "EISDIR" }), path }]);
    rmSync(path, { recursive: true });
    file.write(record(3));
    chmodSync(path, 0o600);
    expect(await names(file)).toEqual(["n3"]);
  });
});
