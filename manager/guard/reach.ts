/**
 * What a user with stack prefixes may reach: the one place that decides. Pure.
 *
 * An object is within reach if its name is one of the prefixes, or goes on from one with `_`, `-` or `.` (`shop` reaches `shop`,
 * `shop_web` and the stack `shop-staging`, not `shopping`), and if a stack that its label names is so too. All else is not:
 * objects of other names, what belongs to the whole cluster (nodes, images, users, settings), and whatever would hand a task its
 * host. So nobody comes to more by what they may do.
 */
import { SwarmError } from "../../common/base/error.ts";
import { quoted } from "../../common/model/units.ts";
import type { PeerIdentity } from "../../common/rpc/service.ts";

/** What a call is about. */
export type Subject =
  /** An object, as it is or as it is to be; `stack` is the one that its label puts it into. */
  | { readonly kind: ObjectKind; readonly name: string; readonly stack?: string | undefined }
  /** What there is once for all: "nodes". */
  | { readonly kind: "cluster"; readonly what: string }
  /** What leads a service's tasks out to their hosts: "privileged". */
  | { readonly kind: "privilege"; readonly service: string; readonly what: string };

export type ObjectKind = "service" | "stack" | "secret" | "config" | "volume" | "network";

/** Whose reach, and how far it goes. */
export interface Reach {
  readonly user: string;
  readonly prefixes: readonly string[];
}

/** Problems that are told one by one: a stack of 500 services would be no message. */
const PROBLEMS_SHOWN_MAX = 5;
const BETWEEN_WORDS = ["_", "-", "."];

/** How far somebody reaches; undefined: everywhere. */
export function reachOf(identity: PeerIdentity): Reach | undefined {
  if (identity.kind !== "user" || identity.stackPrefixes === undefined) return undefined;
  return { user: identity.name, prefixes: identity.stackPrefixes };
}

/** Whether a name is of one of the stacks. */
export function isWithin({ prefixes }: Reach, name: string): boolean {
  return prefixes.some((prefix) => {
    if (!name.startsWith(prefix)) return false;
    const next = name.slice(prefix.length, prefix.length + 1);
    return next === "" || BETWEEN_WORDS.includes(next) || BETWEEN_WORDS.includes(prefix.slice(-1));
  });
}

/** Why it may not be; undefined: it may. */
export function problemOf(reach: Reach, subject: Subject): string | undefined {
  switch (subject.kind) {
    case "cluster":
      return `${subject.what} are of the whole cluster`;
    case "privilege":
      return `service ${quoted(subject.service)}: ${subject.what} would lead out of its tasks`;
    default: {
      const { kind, name, stack } = subject;
      if (!isWithin(reach, name)) return `${kind} ${quoted(name)} is not of these`;
      if (stack === undefined || isWithin(reach, stack)) return undefined;
      return `${kind} ${quoted(name)} is of stack ${quoted(stack)}`;
    }
  }
}

/** Throws `permission_denied` that names what is out of reach. */
export function requireWithin(reach: Reach, subjects: readonly Subject[]): void {
  const problems = new Set(subjects.flatMap((subject) => problemOf(reach, subject) ?? []));
  if (problems.size === 0) return;
  const shown = [...problems].slice(0, PROBLEMS_SHOWN_MAX);
  if (problems.size > shown.length) shown.push(`and ${problems.size - shown.length} more`);
  const stacks = `stacks that begin with ${reach.prefixes.join(", ")}`;
  throw new SwarmError("permission_denied", `user ${reach.user} is confined to ${stacks}: ${shown.join("; ")}`);
}
