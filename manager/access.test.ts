/**
 * Goal: nobody may call what is not theirs. Method: the whole table, every method of every service against every caller,
 * beside a short list of what each may do that a reviewer can read.
 */
import type { DescMethod, DescService } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import type { ClusterId, NodeId } from "../common/base/id.ts";
import type { PeerIdentity } from "../common/rpc/service.ts";
import { ManagerPeers, NodeCa } from "../proto/gen/swarm/v1/ca_pb.js";
import { Control } from "../proto/gen/swarm/v1/control_pb.js";
import { Content, Dispatcher, LogBroker, StreamBroker } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import { authorize } from "./access.ts";

const clusterId = "c".repeat(25) as ClusterId;
const nodeId = "n".repeat(25) as NodeId;
const node = (role: "swarm-worker" | "swarm-manager") => ({ kind: "node", nodeId, role, clusterId }) as const;
const user = (role: "swarm-viewer" | "swarm-deployer" | "swarm-admin") =>
  ({ kind: "user", name: "ci", role, clusterId, serial: "5e", notAfterMs: 0 }) as const;
const members = { hasNode: () => true, serialOf: () => "5e" };

const CALLERS: Readonly<Record<string, PeerIdentity | undefined>> = {
  nobody: undefined,
  agent: node("swarm-worker"),
  manager: node("swarm-manager"),
  viewer: user("swarm-viewer"),
  deployer: user("swarm-deployer"),
  admin: user("swarm-admin"),
};

const SERVICES: readonly DescService[] = [NodeCa, ManagerPeers, Dispatcher, LogBroker, StreamBroker, Content, Control];
/** What a viewer may call of Control: all that changes nothing and tells no secret. */
const READS = /^(get(Info|Ca)|list|watch|planStack|resolveImages|serviceLogs|checkNetwork)/;
const ADMINISTERS = ["updateNode", "removeNode", "updateCluster", "getJoinTokens", "getUnlockKey", "rotateCa"];
const USERS = /^(create|list|remove)Users?$|^listAudit$/;

function mayCall(caller: string, method: DescMethod): boolean {
  const { localName: name } = method;
  switch (method.parent.name) {
    case "NodeCa":
      return true;
    case "ManagerPeers":
      return caller === "manager";
    case "Content":
      return caller === "agent" || caller === "manager";
    case "Control":
      if (caller === "admin") return true;
      if (caller === "deployer") return !ADMINISTERS.includes(name) && !USERS.test(name);
      return caller === "viewer" && READS.test(name) && !USERS.test(name);
    default:
      return caller === "agent";
  }
}

const methods = SERVICES.flatMap((service) =>
  service.methods.map((method) => [`${service.name}.${method.name}`, method] as const),
);

test.each(methods)("%s", (_, method) => {
  for (const [caller, identity] of Object.entries(CALLERS)) {
    const call = () => authorize(method, identity, members);
    if (mayCall(caller, method)) expect(call, caller).not.toThrow();
    else expect(call, caller).toThrow(identity ? / is not for / : /needs a certificate of this cluster/);
  }
});

test("a node that was removed may call nothing, not even for a new certificate", () => {
  for (const [, method] of methods) {
    const call = () => authorize(method, node("swarm-worker"), { ...members, hasNode: () => false });
    expect(call).toThrow(`node ${nodeId} was removed`);
  }
});

test.each([
  [undefined, "user ci was removed from the cluster"],
  ["5f", "user ci was given another certificate since this one"],
])("a user whose serial is %s now may call nothing", (serial, message) => {
  for (const [, method] of methods) {
    const call = () => authorize(method, user("swarm-admin"), { ...members, serialOf: () => serial });
    expect(call).toThrow(expect.objectContaining({ code: "permission_denied", message }));
  }
});

test("who comes by the host's socket or its administrator's CA is an admin", () => {
  for (const identity of [{ kind: "host" }, { kind: "operator", name: "CN=alice" }] as const) {
    expect(() => authorize(Control.method.removeUser, identity, members)).not.toThrow();
    expect(() => authorize(Dispatcher.method.openSession, identity, members)).toThrow("not for users");
  }
});

test("a method that is in no table is nobody's", () => {
  const strange = { ...Control.method.getInfo, localName: "getEverything", name: "GetEverything" };
  for (const identity of Object.values(CALLERS)) expect(() => authorize(strange, identity, members)).toThrow();
});
