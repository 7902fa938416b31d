/** The cluster's certificate authority, as people see and change it. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type FieldProblem, invalidFields } from "../../common/base/error.ts";
import { durationMs } from "../../common/model/duration.ts";
import { toCertificatesPem } from "../../common/pki/certificates.ts";
import { lifetimeProblem } from "../../common/pki/validity.ts";
import type { GetCaResponseSchema, RotateCaRequest } from "../../proto/gen/swarm/v1/control_pb.js";
import type { ClusterSpec } from "../../proto/gen/swarm/v1/objects_pb.js";
import { rotationGoal } from "../ca/cluster-ca.ts";
import { type RotatingMember, rotatingMembers } from "../ca/rotating-members.ts";
import type { View } from "../store/view.ts";
import type { ControlDependencies } from "./dependencies.ts";

/** More names would fill a terminal and tell nothing more. */
const NAMES_MAX = 10;

/** The root, and how many hosts have followed to it. */
export async function getCa(
  { authority, store, clock }: ControlDependencies,
  signal: AbortSignal,
): Promise<MessageInitShape<typeof GetCaResponseSchema>> {
  await authority.ensure(signal);
  const { view } = store;
  const ca = view.cluster?.ca;
  if (ca === undefined) return { root: authority.root };
  const { issuerKeyId } = rotationGoal(ca);
  const trusted = authority.certificates.trustedKeyIds.toSorted().join();
  const isRenewed = (member: RotatingMember) => member.issuerKeyId === issuerKeyId;
  const isTrusting = ({ trusted: keys }: RotatingMember) => keys.toSorted().join() === trusted;
  const hosts = hostsOf(view, clock.nowMs());
  const rotating = ca.rotation !== undefined;
  const away = rotating
    ? hosts.filter(({ members }) => members.some((each) => !isRenewed(each) && !each.isConnected))
    : [];
  const isSettled = (each: RotatingMember) => !each.isConnected || (isRenewed(each) && isTrusting(each));
  return {
    root: authority.root,
    rotating,
    settled: !rotating && hosts.every(({ members }) => members.every(isSettled)),
    nodes: hosts.length,
    nodesRenewed: hosts.filter(({ members }) => members.every(isRenewed)).length,
    nodesTrusting: rotating ? 0 : hosts.filter(({ members }) => members.every(isTrusting)).length,
    away: away.slice(0, NAMES_MAX).map(({ name }) => name),
    nodesAway: away.length,
    authorities: toCertificatesPem(authority.certificates.issuers),
    rotations: ca.rotations,
  };
}

/** Begins to change the authority. */
export async function rotateCa(
  { authority, logger }: ControlDependencies,
  { certificates, key, certificateLifetime }: RotateCaRequest,
  signal: AbortSignal,
): Promise<void> {
  await authority.ensure(signal);
  const problems: FieldProblem[] = [...lifetimeProblems(certificateLifetime)];
  if (certificates !== "" && key === "")
    problems.push({ field: "key", problem: "is that of the certificate: must be given, too" });
  if (certificates === "" && key !== "")
    problems.push({ field: "certificates", problem: "must be given with the key" });
  if (problems.length > 0) throw invalidFields(problems);
  const successor = certificates === "" ? {} : { successor: { certificates, key } };
  await authority.rotate({ ...successor, ...(certificateLifetime && { certificateLifetime }) }, signal);
  logger.info({ root: authority.certificates.root.subject, brought: certificates !== "" }, "root rotation has begun");
}

/** What is wrong with how long certificates are to live; nothing with what is not said. */
export function lifetimeProblems(lifetime: ClusterSpec["certificateLifetime"]): readonly FieldProblem[] {
  const lifetimeMs = durationMs(lifetime);
  const problem = lifetimeMs === undefined ? undefined : lifetimeProblem(lifetimeMs);
  return problem === undefined ? [] : [{ field: "certificate_lifetime", problem }];
}

interface Host {
  readonly name: string;
  readonly members: readonly RotatingMember[];
}

/** Agent and manager of one host have one id, and count once. Those that nobody waits for do not count. */
function hostsOf(view: View, nowMs: number): readonly Host[] {
  const hosts = new Map<string, RotatingMember[]>();
  for (const member of rotatingMembers(view, nowMs)) {
    if (!member.isConnected && member.hasEnded) continue;
    const host = hosts.get(member.id);
    if (host) host.push(member);
    else hosts.set(member.id, [member]);
  }
  return [...hosts].map(([id, members]) => {
    const hostname = view.nodes.get(id)?.description?.hostname ?? view.managers.get(id)?.hostname;
    return { name: hostname || id, members };
  });
}
