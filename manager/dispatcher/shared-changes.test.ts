import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { AssignmentChangeSchema, AssignmentsMessageSchema } from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import { assignmentsMessage, sharedChange } from "./shared-changes.ts";

const peer = (nodeId: string) =>
  sharedChange({ item: { case: "peer", value: { nodeId, hostname: `host-${nodeId}`, address: "192.0.2.1" } } });
const network = (id: string) => create(AssignmentChangeSchema, { item: { case: "network", value: { id } } });

test("who reads a message finds the shared changes among the others, and the header", () => {
  const changes = [peer("one"), network("net"), peer("two")];
  const message = assignmentsMessage({ resultsIn: "7", epoch: 3n }, changes);
  const read = fromBinary(AssignmentsMessageSchema, toBinary(AssignmentsMessageSchema, message));
  expect(read).toMatchObject({ resultsIn: "7", epoch: 3n });
  expect(read.changes.map(({ item }) => item.case)).toEqual(["network", "peer", "peer"]);
  expect(read.changes.map(({ item }) => item.value)).toMatchObject([
    { id: "net" },
    { nodeId: "one", hostname: "host-one", address: "192.0.2.1" },
    { nodeId: "two" },
  ]);
});

test("a change may stand in many messages", () => {
  const change = peer("one");
  const messages = [1, 2].map(() => assignmentsMessage({}, [change]));
  const [first, second] = messages.map((message) => toBinary(AssignmentsMessageSchema, message));
  expect(first).toEqual(second);
  expect(assignmentsMessage({}, []).changes).toEqual([]);
});
