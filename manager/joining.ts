/** Where a manager that begins or joins has its place, and how others take it in. */
import { networkInterfaces } from "node:os";
import { abortReason } from "../common/base/clock.ts";
import { SwarmError } from "../common/base/error.ts";
import { type HostPort, parseHostPort, printHostPort } from "../common/base/host-port.ts";
import type { NodeId } from "../common/base/id.ts";
import { openGrpcTransport } from "../common/rpc/grpc-transport.ts";
import { createClient } from "../common/rpc/service.ts";
import { type JoinManagersResponse, ManagerPeers } from "../proto/gen/swarm/v1/ca_pb.js";
import { advertisedAddress, MANAGER_PORT, PEER_PORT_OFFSET } from "./advertised.ts";
import type { Membership } from "./membership.ts";
import { peerUrl } from "./store/embedded-etcd.ts";

const JOIN_CALL_MS_MAX = 20_000;

/** Where a manager is reached, and its etcd. */
export interface Place {
  readonly listen: string;
  readonly advertise: string;
  /** Of its etcd. */
  readonly peer: string;
  readonly peerListen: string;
  /** The membership of a manager whose etcd begins, to be shared later. */
  readonly shared: Membership;
}

/** From what an operator said. Throws `invalid_argument` that names the flag. */
export function placeOf(
  request: { readonly listenAddress: string; readonly advertiseAddress: string },
  nodeId: NodeId,
): Place {
  const listen = parseHostPort(request.listenAddress || `0.0.0.0:${MANAGER_PORT}`);
  if (!listen) throw new SwarmError("invalid_argument", `--listen-addr: ${request.listenAddress} is not HOST:PORT`);
  const advertise = advertisedAddress(request.advertiseAddress, listen, networkInterfaces());
  const { host, port } = parseHostPort(advertise) ?? listen;
  const peer = printHostPort({ host, port: port + PEER_PORT_OFFSET });
  const peerListen = printHostPort({ host: listen.host, port: listen.port + PEER_PORT_OFFSET } satisfies HostPort);
  const etcd = {
    ...({ kind: "shared", listen: peerListen, advertise: peer } as const),
    initialCluster: `${nodeId}=${peerUrl(peer)}`,
    joins: false,
  };
  const addresses = { listen: printHostPort(listen), advertise };
  return { ...addresses, peer, peerListen, shared: { ...addresses, etcd } };
}

/** The membership of a manager that uses somebody else's etcd. */
export function external({ listen, advertise }: Place, endpoints: readonly string[]): Membership {
  return { listen, advertise, etcd: { kind: "external", endpoints } };
}

/** The membership of a manager that was taken in. */
export function joinedMembership(place: Place, taken: JoinManagersResponse): Membership {
  if (taken.etcdEndpoints.length > 0) return external(place, taken.etcdEndpoints);
  const { listen, advertise, peer, peerListen } = place;
  const etcd = {
    kind: "shared",
    listen: peerListen,
    advertise: peer,
    initialCluster: taken.etcdInitialCluster,
  } as const;
  return { listen, advertise, etcd: { ...etcd, joins: true } };
}

/** Asks the managers to be taken in: the first that can does it. */
export async function takenInBy(
  managers: readonly string[],
  tls: Parameters<typeof openGrpcTransport>[0]["tls"] & object,
  etcdPeerAddress: string,
  signal: AbortSignal,
): Promise<JoinManagersResponse> {
  let failure = new SwarmError("invalid_argument", "no manager is known to join by");
  for (const address of managers) {
    try {
      await using transport = openGrpcTransport({ address, tls });
      const options = { signal, timeoutMs: JOIN_CALL_MS_MAX };
      return await createClient(ManagerPeers, transport).joinManagers({ etcdPeerAddress }, options);
    } catch (reason) {
      if (signal.aborted) throw abortReason(signal);
      failure = SwarmError.wrap(`manager ${address}`, reason);
    }
  }
  throw failure;
}
