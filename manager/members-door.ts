/**
 * The managers' port: mutual TLS 1.3 under the cluster's own certificates, for agents, managers and people of other hosts. Who
 * may call what, `access.ts` says, by what the store knows of them at that moment.
 */
import type { Logger } from "../common/base/logger.ts";
import { GrpcServer } from "../common/rpc/grpc-server.ts";
import { MutualTls } from "../common/rpc/tls.ts";
import { authorize, membersOf } from "./access.ts";
import type { ManagerIdentity } from "./ca/manager-identity.ts";
import type { Audit } from "./guard/audit.ts";
import { isChange } from "./guard/changes.ts";
import type { View } from "./store/view.ts";

/** Agents connect again after this long, which spreads them over the managers once more. */
const CONNECTION_AGE_MS_MAX = 60 * 60_000;

/** What the door stands on. */
export interface MembersDoorOptions {
  readonly identity: Pick<ManagerIdentity, "server" | "identify" | "onRenewed">;
  readonly view: Pick<View, "nodes" | "managers" | "byName">;
  readonly audit: Pick<Audit, "record">;
  readonly logger: Logger;
}

/** Hosts without a certificate reach it too, for their first one. */
export function openMembersDoor({ identity, view, audit, logger }: MembersDoorOptions): GrpcServer {
  const tls = new MutualTls(identity.server, { anonymous: true });
  identity.onRenewed(() => tls.renew(identity.server));
  const members = membersOf(view);
  return new GrpcServer({
    ...{ logger, tls, connectionAgeMsMax: CONNECTION_AGE_MS_MAX },
    identify: (certificate) => identity.identify(certificate),
    authorize: (method, peer) => {
      try {
        authorize(method, peer.identity, members);
      } catch (failure) {
        // What it was about, nobody has read.
        if (peer.identity?.kind === "user" && isChange(method)) {
          audit.record({ peer, method: method.name, what: { kind: "" } }, { failure });
        }
        throw failure;
      }
    },
  });
}
