import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { LogMessage_Stream, LogMessageSchema, TaskViewSchema } from "../../proto/gen/swarm/v1/control_pb.js";
import { LogPrinter, type LogStyle } from "./log-printer.ts";

const view = create(TaskViewSchema, {
  task: { id: "abcdefghijklmnopqrstuvwxy", serviceId: "svc", slot: 1, nodeId: "node1" },
  serviceName: "web",
  nodeHostname: "alpha",
});
const plain: LogStyle = {
  raw: false,
  timestamps: false,
  details: false,
  taskIds: true,
  fullIds: false,
  resolve: true,
  colours: false,
  names: new Map([["abcdefghijklmnopqrstuvwxy", view]]),
};

function line(text: string, more: object = {}) {
  return create(LogMessageSchema, {
    taskId: "abcdefghijklmnopqrstuvwxy",
    nodeId: "node1",
    timestamp: { seconds: 1_700_000_000n, nanos: 5 },
    stream: LogMessage_Stream.STDOUT,
    data: Buffer.from(text),
    ...more,
  });
}

test.each<[string, Partial<LogStyle>, string]>([
  ["the default", {}, "web.1.abcdefghijkl@alpha    | hi\n"],
  ["raw", { raw: true }, "hi\n"],
  ["without ids", { taskIds: false }, "web.1@alpha    | hi\n"],
  ["unresolved", { resolve: false }, "abcdefghijkl@node1    | hi\n"],
  ["timestamps", { timestamps: true }, "2023-11-14T22:13:20.000000005Z web.1.abcdefghijkl@alpha    | hi\n"],
  [
    "details",
    { raw: true, details: true },
    "com.docker.swarm.node.id=node1,com.docker.swarm.service.id=svc,com.docker.swarm.task.id=abcdefghijklmnopqrstuvwxy hi\n",
  ],
  ["colours", { colours: true, taskIds: false }, "\u001b[36mweb.1@alpha    |\u001b[0m hi\n"],
])("%s", (_, style, expected) => {
  expect(new LogPrinter({ ...plain, ...style }).print([line("hi")]).out).toBe(expected);
});

test("streams stay apart, and parts of a long line are joined", () => {
  const printer = new LogPrinter({ ...plain, taskIds: false });
  const batch = [line("a", { partial: true }), line("oops", { stream: LogMessage_Stream.STDERR }), line("b")];
  expect(printer.print(batch)).toEqual({ out: "web.1@alpha    | ab\n", err: "web.1@alpha    | oops\n" });
});
