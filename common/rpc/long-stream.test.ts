/**
 * Goal: a stream holds what its windows hold, however much has gone over it. Method: 200 MiB over gRPC in either direction, and the
 * process's own count of buffers while the call is still open.
 */

import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import {
  type AgentFrame,
  AgentFrameSchema,
  type ManagerFrame,
  ManagerFrameSchema,
  StreamBroker,
} from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import { silentLogger } from "../base/logger.ts";
import { GrpcServer } from "./grpc-server.ts";
import { openGrpcTransport } from "./grpc-transport.ts";
import { createClient } from "./service.ts";

const MIB = 1 << 20;
const MESSAGES = 200;

setFlagsFromString("--expose-gc");
const collect: () => void = runInNewContext("gc");

/** Bytes that buffers hold, those that nobody can reach apart. */
function held(): number {
  collect();
  return process.memoryUsage().arrayBuffers;
}

const up = () => create(AgentFrameSchema, { content: { case: "copy", value: { content: data() } } });
const down = () => create(ManagerFrameSchema, { content: { case: "copy", value: { content: data() } } });
const data = () => ({ case: "data" as const, value: new Uint8Array(MIB) });

test("what was sent and what came is let go of while the call goes on", async () => {
  const heldUp: number[] = [];
  const server = new GrpcServer({ logger: silentLogger });
  server.addService(StreamBroker, {
    async *listenStreams() {},
    async *carryStream(frames: AsyncIterable<AgentFrame>): AsyncGenerator<ManagerFrame> {
      let count = 0;
      for await (const _ of frames) {
        count += 1;
        if (count === MESSAGES) break;
      }
      heldUp.push(held());
      for (let sent = 0; sent < MESSAGES; sent++) yield down();
    },
  });
  const address = await server.listen("127.0.0.1:0");
  const transport = openGrpcTransport({ address });
  try {
    const before = held();
    async function* frames() {
      for (let sent = 0; sent < MESSAGES; sent++) yield up();
      // The call stays open in this direction, too.
      await new Promise<never>(() => {});
    }
    let came = 0;
    let after = 0;
    for await (const _ of createClient(StreamBroker, transport).carryStream(frames())) {
      came += 1;
      if (came === MESSAGES) after = held();
    }
    expect(came).toBe(MESSAGES);
    for (const bytes of [...heldUp, after]) expect((bytes - before) / MIB).toBeLessThan(MESSAGES / 4);
  } finally {
    await transport[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
  }
});
