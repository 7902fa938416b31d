/** The manager on this host, by its socket. */
import { openGrpcTransport } from "../common/rpc/grpc-transport.ts";
import { type Client, createClient } from "../common/rpc/service.ts";
import { type JoinClusterRequest, LocalManager, LocalState } from "../proto/gen/swarm/v1/local_pb.js";

/** To join it copies the store of the others. */
const JOIN_MS_MAX = 150_000;

export interface LocalManagerDoor extends AsyncDisposable {
  readonly client: Client<typeof LocalManager>;
  /** Whether it is in no cluster. Throws `unavailable` when there is no manager on this host. */
  isIdle(signal: AbortSignal): Promise<boolean>;
  join(request: Omit<JoinClusterRequest, "$typeName" | "$unknown">, signal: AbortSignal): Promise<void>;
}

/** Opens it; nothing is called yet. */
export function openLocalManager(socket: string): LocalManagerDoor {
  const transport = openGrpcTransport({ address: `unix:${socket}` });
  const client = createClient(LocalManager, transport);
  return {
    client,
    isIdle: async (signal) => (await client.getLocalManager({}, { signal })).state === LocalState.IDLE,
    async join(request, signal) {
      await client.joinCluster(request, { signal, timeoutMs: JOIN_MS_MAX });
    },
    [Symbol.asyncDispose]: () => transport[Symbol.asyncDispose](),
  };
}
