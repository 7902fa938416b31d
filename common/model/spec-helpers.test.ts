import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import {
  ContainerSpecSchema,
  ServiceSpecSchema,
  TaskSpecSchema,
  UpdateConfigSchema,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { seededRandom } from "../base/random.ts";
import { replicasOf, restartDelayMs, stopGracePeriodMs, updateMonitorMs, updateParallelism } from "./defaults.ts";
import { durationMs, timestampMs, toDuration, toTimestamp } from "./duration.ts";
import { randomServiceName } from "./names.ts";
import { lacking, reservedBy } from "./resources.ts";
import { taskSpecChanged } from "./task-diff.ts";
import { expandContainerSpec, expandTemplate } from "./template.ts";
import { escapeControls } from "./text.ts";

test.each([0, 1, 1500, 0.001, -1500, 1e12])("%d ms survive the wire", (ms) => {
  expect(durationMs(toDuration(ms))).toBeCloseTo(ms, 6);
  expect(timestampMs(toTimestamp(ms))).toBeCloseTo(ms, 6);
});

test("absent fields mean Docker's defaults", () => {
  expect(stopGracePeriodMs(undefined)).toBe(10_000);
  expect(stopGracePeriodMs(create(TaskSpecSchema, { container: { stopGracePeriod: toDuration(0) } }))).toBe(0);
  expect(restartDelayMs(undefined)).toBe(5000);
  expect(updateParallelism(undefined)).toBe(1);
  expect(updateParallelism(create(UpdateConfigSchema, {}))).toBe(Number.POSITIVE_INFINITY);
  expect(updateMonitorMs(create(UpdateConfigSchema, {}))).toBe(5000);
  expect(replicasOf(undefined)).toBe(1);
});

describe("what makes a task old", () => {
  const base = { name: "a", task: { container: { image: "x", env: ["A=1"], init: true } } };
  const spec = (more: object) => create(ServiceSpecSchema, { ...base, ...more });
  test.each([
    ["nothing", spec({}), false],
    ["a label of the service", spec({ labels: { a: "b" } }), false],
    ["replicas", spec({ mode: { mode: { case: "replicated", value: { replicas: 9n } } } }), false],
    ["an ingress port", spec({ endpoint: { ports: [{ targetPort: 80 }] } }), false],
    [
      "a newer token",
      spec({ task: { container: { ...base.task.container, pullOptions: { registryAuth: "t" } } } }),
      false,
    ],
    ["a host port", spec({ endpoint: { ports: [{ targetPort: 80, publishMode: 1 }] } }), true],
    ["the image", spec({ task: { container: { image: "y" } } }), true],
    ["force", spec({ task: { ...base.task, forceUpdate: 1n } }), true],
  ])("%s", (_, after, expected) => {
    expect(taskSpecChanged(spec({}), after)).toBe(expected);
  });

  test.each<[string, string[], number, number, boolean]>([
    ["the first port, on networks only", ["front"], 0, 1, true],
    ["a further port", ["front"], 1, 2, false],
    ["no port any more", ["front"], 1, 0, false],
    ["the first port, also on bridge", ["front", "bridge"], 0, 1, false],
    ["the first port, on no network", [], 0, 1, false],
  ])("%s", (_, networks, before, after, expected) => {
    const task = { ...base.task, networks: networks.map((target) => ({ target })) };
    const of = (count: number) =>
      spec({ task, endpoint: { ports: Array.from({ length: count }, (_, index) => ({ targetPort: index + 1 })) } });
    expect(taskSpecChanged(of(before), of(after))).toBe(expected);
  });
});

const context = {
  serviceId: "s1",
  serviceName: "web",
  serviceLabels: { tier: "front" },
  nodeId: "n1",
  nodeHostname: "alpha",
  nodeArchitecture: "x86_64",
  nodeOs: "linux",
  taskId: "t1",
  slot: 2,
};

test("templates expand in hostname, environment and mounts", () => {
  const spec = create(ContainerSpecSchema, {
    hostname: "{{.Service.Name}}-{{.Task.Slot}}",
    env: ["N={{.Node.Hostname}}", 'T={{index .Service.Labels "tier"}}', "PLAIN=1", "{{NAME}}"],
    mounts: [{ source: "{{.Task.Name}}", target: "/{{.Node.Platform.OS}}" }],
  });
  const expanded = expandContainerSpec(spec, context);
  expect(expanded.ok && [expanded.value.hostname, expanded.value.env, expanded.value.mounts[0]?.source]).toEqual([
    "web-2",
    ["N=alpha", "T=front", "PLAIN=1", "{{NAME}}"],
    "web.2.t1",
  ]);
  expect(expandTemplate("{{.Task.Slot}}", { ...context, slot: 0 })).toEqual({ ok: true, value: "n1" });
  expect(expandTemplate('{{join "-" .Service.ID .Node.ID}}', context)).toEqual({ ok: true, value: "s1-n1" });
});

test("reservations", () => {
  const reserved = reservedBy(
    create(TaskSpecSchema, { resources: { reservations: { nanoCpus: 2n, memoryBytes: 5n } } }),
  );
  expect(lacking(reserved, { nanoCpus: 2, memoryBytes: 4 })).toEqual(["memory"]);
  expect(lacking({ nanoCpus: 0, memoryBytes: 0 }, { nanoCpus: -1, memoryBytes: -1 })).toEqual([]);
});

test("random names are Docker's", () => {
  expect(randomServiceName(seededRandom(1))).toMatch(/^[a-z]+_[a-z]+$/);
  expect(randomServiceName(seededRandom(1), 1)).toMatch(/^[a-z]+_[a-z]+[0-9]$/);
});

test("control characters are escaped", () => {
  expect(escapeControls("a\u001b[2Jb\n\u202e")).toBe("a\\u001b[2Jb\\u000a\\u202e");
});
