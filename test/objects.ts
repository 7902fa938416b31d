import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { newId } from "../common/base/id.ts";
import { seededRandom } from "../common/base/random.ts";
import { type Service, ServiceSchema, type Task, TaskSchema } from "../proto/gen/swarm/v1/objects_pb.js";

const random = seededRandom(1);

/** A fresh id; the same run makes the same ones. */
export function testId(): string {
  return newId(random);
}

/** A service with what a test does not care about filled in. */
export function aService(init: MessageInitShape<typeof ServiceSchema> = {}): Service {
  const id = testId();
  return create(ServiceSchema, { id, name: `service-${id.slice(0, 6)}`, specVersion: 1n, ...init });
}

/** A task with what a test does not care about filled in. */
export function aTask(init: MessageInitShape<typeof TaskSchema> = {}): Task {
  return create(TaskSchema, { id: testId(), serviceId: testId(), specVersion: 1n, slot: 1, ...init });
}
