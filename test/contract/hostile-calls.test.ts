/**
 * Goal: no request, whatever is in it, costs a manager more than its size, and each is answered by its status (hardening cases 71-74
 * and 86). Method: the real program, called by hand: as a stranger, as a node, and over the host's socket.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { create, toBinary } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CreateServiceRequestSchema } from "../../proto/gen/swarm/v1/control_pb.js";
import { type Callee, callRaw, framed } from "../hostile/raw-call.ts";
import { joinAsMember, watched } from "../hostile/victim.ts";
import { type ManagerProgram, startManagerProgram } from "../manager-program.ts";

const MIB = 1 << 20;
const STATUS = {
  ok: 0,
  invalidArgument: 3,
  deadlineExceeded: 4,
  resourceExhausted: 8,
  unimplemented: 12,
  internal: 13,
};
const CALLERS = ["stranger", "node", "host"] as const;
type Caller = (typeof CALLERS)[number];

/** What each may call, and how large a request it may send. */
const CALLS: Readonly<Record<Caller, { readonly path: string; readonly bytesMax: number }>> = {
  stranger: { path: "swarm.v1.NodeCa/IssueCertificate", bytesMax: 16 * 1024 },
  node: { path: "swarm.v1.Dispatcher/UpdateTaskStatus", bytesMax: 4 * MIB },
  host: { path: "swarm.v1.Control/CreateService", bytesMax: 4 * MIB },
};

let folder = "";
let manager: ManagerProgram;
let callees: Readonly<Record<Caller, Callee>>;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "hostile-calls-"));
  manager = await startManagerProgram(folder, "m");
  const { client } = await joinAsMember(manager, join(folder, "node"));
  callees = {
    stranger: { address: manager.address, tls: {} },
    node: { address: manager.address, tls: client },
    host: { socket: manager.socket },
  };
});
afterAll(async () => {
  await manager.stop();
  await rm(folder, { recursive: true, force: true });
});

function call(caller: Caller, body: Uint8Array, options: Parameters<typeof callRaw>[3] = {}) {
  return callRaw(callees[caller], CALLS[caller].path, body, options);
}

/** A field that nobody knows, of groups within groups (wire types 3 and 4), and as deep as that. */
const deep = (depth: number) => Buffer.concat([Buffer.alloc(depth, 0x7b), Buffer.alloc(depth, 0x7c)]);

describe.each(CALLERS)("from a %s", (caller) => {
  const { bytesMax } = CALLS[caller];

  test("71 a body above the limit is refused by its length, before it comes", async () => {
    const announced = framed(new Uint8Array(), { announced: bytesMax + 1 });
    const answer = await call(caller, announced, { isOpen: true });
    expect(answer).toEqual({
      http: 200,
      status: STATUS.resourceExhausted,
      message: `received message larger than max (${bytesMax + 1} vs. ${bytesMax})`,
    });
  });

  test("72 a gzip bomb is let out no further than the limit", async () => {
    const bomb = framed(gzipSync(Buffer.alloc(caller === "stranger" ? 8 * MIB : 512 * MIB)), { compressed: true });
    expect(bomb.length).toBeLessThan(bytesMax);
    const calls = Promise.all(
      Array.from({ length: 8 }, () => call(caller, bomb, { headers: { "grpc-encoding": "gzip" } })),
    );
    const { outcome, grownMib } = await watched(manager, memberTls(), calls);
    for (const { status, message } of outcome) {
      expect(status).toBe(STATUS.resourceExhausted);
      expect(message).toContain(`decompresses to a size larger than ${bytesMax}`);
    }
    expect(grownMib).toBeLessThan(80);
  });

  test("72 what is no gzip, or of another kind, is told", async () => {
    const garbage = framed(Buffer.from("garbage"), { compressed: true });
    expect(await call(caller, garbage, { headers: { "grpc-encoding": "gzip" } })).toMatchObject({
      status: STATUS.internal,
    });
    expect(await call(caller, garbage, { headers: { "grpc-encoding": "br" } })).toMatchObject({
      status: STATUS.unimplemented,
    });
  });

  test.each([1_000, 8_000])("73 a message %i deep is none", async (depth) => {
    const { status, message } = await call(caller, framed(deep(depth)));
    expect(status).toBe(STATUS.invalidArgument);
    expect(message).toMatch(/^decode swarm\.v1\.\w+Request: /);
  });

  test("73 bytes that are no message are told", async () => {
    expect(await call(caller, framed(Buffer.alloc(100, 0xff)))).toMatchObject({ status: STATUS.invalidArgument });
    // Nothing at all where one message is due.
    expect((await call(caller, new Uint8Array())).status).toBeGreaterThan(0);
  });

  test.each(["swarm.v1.Control/Nothing", "swarm.v1.Nothing/GetInfo", "x", "../../etc/passwd"])(
    "74 unknown method %s",
    async (path) => {
      expect(await callRaw(callees[caller], path, framed(new Uint8Array()))).toMatchObject({
        status: STATUS.unimplemented,
      });
    },
  );

  test("74 what is no gRPC", async () => {
    expect(await call(caller, new Uint8Array(), { headers: { "content-type": "text/html" } })).toMatchObject({
      http: 415,
      status: -1,
    });
  });

  test.each(["0n", "1n", "0S"])("86 a deadline that is past: %s", async (timeout) => {
    const body = framed(new Uint8Array());
    expect(await call(caller, body, { headers: { "grpc-timeout": timeout } })).toMatchObject({
      status: STATUS.deadlineExceeded,
    });
  });

  test("86 a deadline that is none", async () => {
    expect(await call(caller, framed(new Uint8Array()), { headers: { "grpc-timeout": "tomorrow" } })).toMatchObject({
      status: STATUS.internal,
    });
  });
});

test("86 a call that comes too late changes nothing", async () => {
  const spec = { name: "late", task: { container: { image: "demo/web:1" } } };
  const request = create(CreateServiceRequestSchema, { spec });
  const body = framed(toBinary(CreateServiceRequestSchema, request));
  for (const timeout of ["0n", "1u", "tomorrow"]) {
    const answer = await call("host", body, { headers: { "grpc-timeout": timeout } });
    expect([STATUS.deadlineExceeded, STATUS.internal]).toContain(answer.status);
  }
  const services = () => manager.call(async (control) => (await control.listServices({})).services);
  expect(await services()).toEqual([]);
  // In time it is made, so that it was the deadline.
  expect(await call("host", body, { headers: { "grpc-timeout": "20S" } })).toMatchObject({ status: STATUS.ok });
  expect(await services()).toHaveLength(1);
});

test("nothing of all that is a bug for the manager", () => {
  expect(manager.text.filter((line) => line.includes("failed by a bug") || line.includes('"level":"fatal"'))).toEqual(
    [],
  );
  expect(manager.child.exitCode).toBeNull();
});

function memberTls() {
  const { node } = callees;
  if (!("tls" in node)) throw new Error("no node");
  return node.tls;
}
