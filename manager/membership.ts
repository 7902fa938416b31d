/**
 * What this manager remembers of the cluster that it is in, to start again by: DATA-DIR/membership.json. Without it the manager
 * is in none, and waits to be told to begin or to join one.
 */
import { readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf, SwarmError } from "../common/base/error.ts";
import { parseHostPort } from "../common/base/host-port.ts";

/** A manager's place in a cluster. Addresses are "host:port". */
export interface Membership {
  /** Where agents, managers and swarmctls connect. */
  readonly listen: string;
  /** How they reach it. */
  readonly advertise: string;
  readonly etcd: MembershipEtcd;
}

/** Which etcd has the store. */
export type MembershipEtcd =
  /** Of this manager alone. */
  | { readonly kind: "alone" }
  /** Of the managers together. */
  | {
      readonly kind: "shared";
      readonly listen: string;
      readonly advertise: string;
      readonly initialCluster: string;
      readonly joins: boolean;
    }
  /** Somebody else's. */
  | { readonly kind: "external"; readonly endpoints: readonly string[] };

const VERSION = 1;
const pathIn = (directory: string) => join(directory, "membership.json");

/** Undefined: in no cluster. Throws `data_loss` for a file that is damaged. */
export async function readMembership(directory: string): Promise<Membership | undefined> {
  const path = pathIn(directory);
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (reason) {
    if (errnoOf(reason) === "ENOENT") return undefined;
    throw SwarmError.wrap(`read ${path}`, reason, "failed_precondition");
  }
  const value = parse(text);
  if (value === undefined) throw new SwarmError("data_loss", `${path} is damaged`);
  return value;
}

/** Kept when this returns, whole or not at all. */
export async function writeMembership(directory: string, membership: Membership): Promise<void> {
  const path = pathIn(directory);
  await writeFile(`${path}.new`, JSON.stringify({ version: VERSION, ...membership }), { mode: 0o600, flush: true });
  await rename(`${path}.new`, path);
}

/** The cluster's things go first, the record last: a manager that dies in between leaves again. */
export async function forgetMembership(directory: string): Promise<void> {
  for (const part of ["etcd", "identity", "content", "cluster.key", "audit.log"]) {
    await rm(join(directory, part), { recursive: true, force: true });
  }
  await rm(pathIn(directory), { force: true });
}

function parse(text: string): Membership | undefined {
  try {
    const value = JSON.parse(text) as Partial<Membership> & { readonly version?: unknown };
    const { version, listen, advertise, etcd } = value;
    const isWhole = version === VERSION && isAddress(listen) && isAddress(advertise) && etcd !== undefined;
    return isWhole ? { listen, advertise, etcd } : undefined;
  } catch (reason) {
    if (reason instanceof SyntaxError) return undefined;
    throw reason;
  }
}

function isAddress(value: unknown): value is string {
  return typeof value === "string" && parseHostPort(value) !== undefined;
}
