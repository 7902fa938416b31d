/** Users as lists show them, and in the shape of the API's other objects. Pure. */
import { timestampMs } from "../../common/model/duration.ts";
import { humanDuration } from "../../common/model/units.ts";
import { type User, User_Role } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { ClusterAuthorities } from "./cluster-authorities.ts";
import { enumWord, filled, timeJson } from "./json-parts.ts";

/** "deployer of the stacks shop, blog"; "viewer". */
export function reachWords(who: {
  readonly role: string;
  readonly stackPrefixes?: readonly string[] | undefined;
}): string {
  const role = who.role.replace(/^swarm-/, "");
  const prefixes = who.stackPrefixes ?? [];
  if (prefixes.length === 0) return role;
  return `${role} of the stack${prefixes.length === 1 ? "" : "s"} ${prefixes.join(", ")}`;
}

export function userRoleName({ role }: User): string {
  return enumWord(User_Role, role);
}

/** "in 3 months", "expired 2 days ago"; with the CA that signs now, also of one that it did not sign. */
export function expiryWords(
  { expiresAt, issuerKey }: User,
  nowMs: number,
  authorities?: Pick<ClusterAuthorities, "issuerKey">,
): string {
  if (authorities && issuerKey !== authorities.issuerKey) return "with the CA before: make another";
  const leftMs = (timestampMs(expiresAt) ?? 0) - nowMs;
  const distance = humanDuration(Math.abs(leftMs)).toLowerCase();
  return leftMs > 0 ? `in ${distance}` : `expired ${distance} ago`;
}

export function userJson(user: User): Record<string, unknown> {
  const fields = {
    ID: user.id,
    Version: { Index: Number(user.meta?.version ?? 0n) },
    CreatedAt: timeJson(user.meta?.createdAt),
    UpdatedAt: timeJson(user.meta?.updatedAt),
    Name: user.name,
    Role: userRoleName(user),
    StackPrefixes: user.stackPrefixes,
    Certificate: { Serial: user.serial, ExpiresAt: timeJson(user.expiresAt) },
  };
  return filled(fields, ["ID", "Name"]);
}
