/** The other end of `agents.ts`: joins `count` nodes and keeps their agents going; or connects and hangs up, `count` times. */
import { once } from "node:events";
import { join as pathOf } from "node:path";
import { text } from "node:stream/consumers";
import { connect } from "node:tls";
import { create } from "@bufbuild/protobuf";
import { Agent } from "../../agent/agent.ts";
import { NodeIdentity } from "../../agent/node-identity.ts";
import { ManagerList } from "../../agent/session.ts";
import { MemoryTaskDatabase } from "../../agent/task-database.ts";
import { systemClock } from "../../common/base/clock.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { systemRandom } from "../../common/base/random.ts";
import { openGrpcTransport } from "../../common/rpc/grpc-transport.ts";
import { NodeDescriptionSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { eventually } from "../eventually.ts";
import { FakeExecutor } from "../fake-executor.ts";

const task = JSON.parse(await text(process.stdin)) as {
  readonly address: string;
  readonly token: string;
  readonly folder: string;
  readonly count: number;
  readonly number?: number;
  readonly only?: "connections";
};
/** Joins at once: a process waits for the manager most of the time. */
const JOINING_MAX = 4;
const { signal } = new AbortController();

class NamedExecutor extends FakeExecutor {
  readonly #hostname: string;

  constructor(hostname: string) {
    super();
    this.#hostname = hostname;
  }

  override async describe() {
    return create(NodeDescriptionSchema, {
      hostname: this.#hostname,
      platform: { os: "linux", architecture: "x86_64" },
    });
  }
}

function joinAs(name: string): Promise<NodeIdentity> {
  const options = { directory: pathOf(task.folder, name), clock: systemClock, random: systemRandom };
  const request = { managers: [task.address], token: task.token };
  // Again, should the manager be busy with those that are there.
  const join = () => NodeIdentity.join({ ...options, logger: silentLogger }, request, signal);
  return eventually(join, { timeoutMs: 120_000, intervalMs: 1_000 });
}

function runAgent(name: string, identity: NodeIdentity): void {
  const agent = new Agent({
    ...{ clock: systemClock, random: systemRandom, logger: silentLogger, bootId: "boot" },
    nodeId: identity.nodeId,
    managers: new ManagerList([task.address]),
    connect: (address) => openGrpcTransport({ address, tls: identity.client }),
    certificates: (inner) => identity.held(inner),
    executor: new NamedExecutor(name),
    database: new MemoryTaskDatabase(),
  });
  void agent.run(signal);
}

async function connectOften(): Promise<void> {
  const { ca, certificate, key } = (await joinAs("connections")).client;
  const [host = "", port = ""] = task.address.split(":");
  for (let index = 0; index < task.count; index++) {
    const pem = { ca, cert: certificate, key };
    const options = { ...pem, minVersion: "TLSv1.3", servername: "swarm-manager", ALPNProtocols: ["h2"] } as const;
    const socket = connect({ ...options, host, port: Number(port) });
    socket.resume();
    await once(socket, "secureConnect");
    socket.end();
    await once(socket, "close");
  }
}

if (task.only === "connections") await connectOften();
else {
  const names = Array.from({ length: task.count }, (_, index) => `bench-${task.number}-${index}`).values();
  const identities = new Map<string, NodeIdentity>();
  await Promise.all(
    Array.from({ length: JOINING_MAX }, async () => {
      for (const name of names) identities.set(name, await joinAs(name));
    }),
  );
  for (const [name, identity] of identities) runAgent(name, identity);
}
