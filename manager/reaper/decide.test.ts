/** Goal: spec versions that nobody needs go, and no other. Method: the decision as a table. */
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ServiceSchema, TaskSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { decideTrimmedSpecs } from "./decide.ts";

const VERSIONS = Array.from({ length: 15 }, (_, index) => BigInt(index + 1));
const SERVICE = create(ServiceSchema, { id: "s", specVersion: 15n, previousSpecVersion: 14n, taskVersion: 15n });
const task = (specVersion: bigint) => create(TaskSchema, { serviceId: "s", specVersion });

test.each([
  ["ten versions all stay", VERSIONS.slice(5), SERVICE, [], []],
  ["of more the newest ten stay", VERSIONS, SERVICE, [], [1n, 2n, 3n, 4n, 5n]],
  ["a task's version stays", VERSIONS, SERVICE, [task(2n), task(4n)], [1n, 3n, 5n]],
  [
    "what the service names stays",
    VERSIONS,
    create(ServiceSchema, { ...SERVICE, taskVersion: 1n, previousSpecVersion: 3n }),
    [],
    [2n, 4n, 5n],
  ],
  ["of a removed service only its tasks' versions stay", [1n, 2n], undefined, [task(2n)], [1n]],
])("%s", (_, versions, service, tasks, expected) => {
  expect(decideTrimmedSpecs(versions, service, tasks)).toEqual(expected);
});
