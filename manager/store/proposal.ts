import type { Kind, Objects } from "./kinds.ts";
import type { LeaseId } from "./kv.ts";

/** A new object; its id must be free, and its name if the kind's names are unique. */
export interface CreateProposal<K extends Kind> {
  readonly type: "create";
  readonly kind: K;
  readonly object: Objects[K];
  /** The object vanishes with this lease. */
  readonly lease?: LeaseId | undefined;
}

/** An object in the place of the one that was read. */
export interface UpdateProposal<K extends Kind> {
  readonly type: "update";
  readonly kind: K;
  readonly object: Objects[K];
  /** The version that was read. Default: the object's own `meta.version`; kinds without Meta must say it. */
  readonly version?: bigint | undefined;
  /** Say it again on each update: an update without it ends the object's tie to its lease. */
  readonly lease?: LeaseId | undefined;
}

export interface DeleteProposal<K extends Kind> {
  readonly type: "delete";
  readonly kind: K;
  readonly id: string;
  /** The version that was read. Default: whatever stands there (kinds with unique names: what the view shows). */
  readonly version?: bigint | undefined;
}

/** One change that somebody wants made to the store. */
export type Proposal = { readonly [K in Kind]: CreateProposal<K> | UpdateProposal<K> | DeleteProposal<K> }[Kind];

/** A proposal of its own, or several that are made together or not at all. */
export type ProposalGroup = Proposal | readonly Proposal[];

/** What a leader's write must prove: that the leader key still is the one it was elected with. */
export interface Fence {
  /** The leader key's create_revision. */
  readonly epoch: number;
  /** Throws `aborted` once the lease may have run out: spares writes that the fence would refuse. */
  checkDeadline(): void;
}
