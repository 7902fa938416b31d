/** Goal: a number of managers that is too small, or no better than one less, is said. Method: a table. */

import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ManagerInfoSchema, NodeSchema, SessionSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeSpec_Role } from "../../proto/gen/swarm/v1/types_pb.js";
import { managersStanding, managerWarnings } from "./warnings.ts";

const FINE = { isStoreTheirs: true, isInTouch: true };

test.each([
  ["one", { members: 1, reachable: 1 }, []],
  ["three", { members: 3, reachable: 3 }, []],
  ["two", { members: 2, reachable: 2 }, [/^the swarm has 2 managers: it survives the loss of none, as with 1\. .*odd/]],
  ["four", { members: 4, reachable: 4 }, [/^the swarm has 4 managers: it survives the loss of 1, as with 3\./]],
  ["two of three", { members: 3, reachable: 2 }, [/^1 of 3 managers cannot be reached: when one more is lost nothing/]],
  ["four of five", { members: 5, reachable: 4 }, [/^1 of 5 managers cannot be reached: 1 more may be lost/]],
  ["three of four", { members: 4, reachable: 3 }, [/^1 of 4 managers/, /^the swarm has 4/]],
  [
    "without a quorum",
    { members: 3, reachable: 1, isInTouch: false },
    [/; 2 of 3 managers must be .*--force-new-cluster$/],
  ],
  [
    "one without its store",
    { members: 1, reachable: 1, isInTouch: false },
    [/^the store does not answer: nothing can be changed$/],
  ],
  ["over a store of somebody else's", { members: 2, reachable: 1, isStoreTheirs: false }, []],
])("%s", (_, standing, said) => {
  const warnings = managerWarnings({ ...FINE, ...standing });
  expect(warnings).toEqual(said.map((pattern) => expect.stringMatching(pattern)));
});

const { MANAGER, WORKER } = NodeSpec_Role;

test("counted are those who have a place, and those on their way; not who is leaving, nor who has left", () => {
  const node = (id: string, desiredRole: NodeSpec_Role) =>
    [id, create(NodeSchema, { id, spec: { desiredRole } })] as const;
  const nodes = new Map([
    node("leads", MANAGER),
    node("is-away", MANAGER),
    node("comes", MANAGER),
    node("was-demoted", WORKER),
    node("has-left", MANAGER),
    node("works", WORKER),
  ]);
  const here = ["leads", "comes", "was-demoted", "works"];
  const sessions = new Map(here.map((nodeId) => [nodeId, create(SessionSchema, { nodeId })]));
  const managers = new Map(
    ["leads", "was-demoted", "has-no-agent"].map((id) => [id, create(ManagerInfoSchema, { id })]),
  );
  const places = ["leads", "is-away", "was-demoted", "has-no-agent"];
  expect(managersStanding({ nodes, managers, sessions }, places)).toEqual({ members: 4, reachable: 3 });
});
