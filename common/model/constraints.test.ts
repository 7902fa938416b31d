import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { NodeSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { matches, parseConstraint } from "./constraints.ts";

const node = create(NodeSchema, {
  id: "n1",
  spec: { labels: { Zone: "A", empty: "" } },
  description: {
    hostname: "Alpha",
    platform: { os: "linux", architecture: "x86_64" },
    engine: { labels: { disk: "ssd" } },
  },
  status: { address: "10.1.2.3:4711" },
});

describe("against a node", () => {
  test.each([
    ["node.id==N1", true],
    ["node.hostname == alpha", true],
    ["node.hostname!=alpha", false],
    ["node.role==worker", true],
    ["node.role!=manager", true],
    ["node.ip==10.1.0.0/16", true],
    ["node.ip==10.2.0.0/16", false],
    ["node.ip!=10.1.2.3", false],
    ["node.ip==::1", false],
    ["node.platform.os==linux", true],
    ["node.platform.arch==amd64", true],
    ["node.platform.arch==x86_64", true],
    ["node.platform.arch!=arm64", true],
    ["node.labels.Zone==a", true],
    ["node.labels.zone==a", false],
    ["node.labels.none!=x", true],
    ["node.labels.toString==x", false],
    ["engine.labels.disk==ssd", true],
    ["NODE.HOSTNAME==alpha", true],
  ])("%s is %s", (text, expected) => {
    const parsed = parseConstraint(text);
    expect(parsed.ok && matches(parsed.value, node)).toBe(expected);
  });
});

test.each([
  ["node.role", "expected one operator from ==, !="],
  ["node.role = = x", "expected one operator from ==, !="],
  ["node.role=worker", "expected one operator from ==, !="],
  ["node.color==red", 'key "node.color" is invalid'],
  ["node.labels.==red", 'key "node.labels." is invalid'],
  ["==x", 'key "" is invalid'],
  ["node.id==", 'value "" is invalid'],
  ["node.id==\u001b", 'value "\\u001b" is invalid'],
  ["node.ip==10.0.0.0/40", 'value "10.0.0.0/40" is not an IP address or network'],
])("%j is refused", (text, problem) => {
  expect(parseConstraint(text)).toEqual({ ok: false, problem: `constraint ${JSON.stringify(text)}: ${problem}` });
});
