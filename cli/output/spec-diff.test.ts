// Goal: a change is told by its field and both values. Method: pairs of specs.
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ServiceSpecSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { specChanges } from "./spec-diff.ts";

type Init = MessageInitShape<typeof ServiceSpecSchema>;

test.each<[string, Init, Init, string[]]>([
  ["nothing", { name: "a" }, { name: "a" }, []],
  [
    "image",
    { task: { container: { image: "a:1" } } },
    { task: { container: { image: "a:2" } } },
    ["task.container.image: a:1 → a:2"],
  ],
  [
    "flags",
    { task: { container: { tty: true } } },
    { task: { container: { openStdin: true } } },
    ["task.container.openStdin: + true", "task.container.tty: - true"],
  ],
  ["label", { labels: {} }, { labels: { tier: "web" } }, ["labels.tier: + web"]],
  [
    "env",
    { task: { container: { env: ["A=1", "B=1"] } } },
    { task: { container: { env: ["A=2", "B=1"] } } },
    ["task.container.env: - A=1 + A=2"],
  ],
  [
    "order",
    { task: { container: { args: ["a", "b"] } } },
    { task: { container: { args: ["b", "a"] } } },
    ["task.container.args: other order"],
  ],
  [
    "replicas",
    { mode: { mode: { case: "replicated", value: { replicas: 1n } } } },
    { mode: { mode: { case: "replicated", value: { replicas: 3n } } } },
    ["mode.replicated.replicas: 1 → 3"],
  ],
])("%s", (_, before, after, changes) => {
  expect(specChanges(create(ServiceSpecSchema, before), create(ServiceSpecSchema, after))).toEqual(changes);
});
