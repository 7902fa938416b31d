import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { assert, SwarmError, unreachable } from "../../common/base/error.ts";
import { nameKey, objectKey } from "./keys.ts";
import { type Kind, kinds } from "./kinds.ts";
import { type Compare, type Operation, TXN_BYTES_MAX, TXN_OPERATIONS_MAX } from "./kv.ts";
import type { CreateProposal, DeleteProposal, Proposal, ProposalGroup, UpdateProposal } from "./proposal.ts";
import type { View } from "./view.ts";

/** A group of proposals in the store's words; never split. */
export interface Unit {
  readonly proposals: readonly Proposal[];
  readonly compare: readonly Compare[];
  readonly operations: readonly Operation[];
  readonly bytes: number;
  /** The keys among `compare` that guard names. */
  readonly names: ReadonlyMap<string, { readonly kind: Kind; readonly name: string }>;
}

/** Bytes of a transaction beside keys and values: field tags, lengths, compares. */
const OVERHEAD_BYTES = 64;

/**
 * Translates groups to units; a group that the view already knows to be in conflict yields none. `keys` gathers the keys
 * of one commit: none may occur twice.
 */
export function toUnits(
  groups: readonly ProposalGroup[],
  view: View,
  now: Timestamp,
  keys: Set<string>,
): { readonly units: Unit[]; readonly conflicts: Proposal[] } {
  const units: Unit[] = [];
  const conflicts: Proposal[] = [];
  for (const group of groups) {
    const proposals = isGroup(group) ? group : [group];
    const unit = toUnit(proposals, view, now);
    if (!unit) {
      conflicts.push(...proposals);
      continue;
    }
    for (const { key } of unit.operations) {
      assert(!keys.has(key), `two proposals of one commit for ${key}`);
      keys.add(key);
    }
    if (unit.operations.length > 0) units.push(unit);
  }
  return { units, conflicts };
}

/** Packs units into as few transactions as the limits allow, in order. */
export function pack(units: readonly Unit[]): Unit[][] {
  const transactions: Unit[][] = [];
  let current: Unit[] = [];
  let operations = 0;
  let bytes = 0;
  for (const unit of units) {
    if (operations + unit.operations.length > TXN_OPERATIONS_MAX || bytes + unit.bytes > TXN_BYTES_MAX) {
      if (current.length > 0) transactions.push(current);
      current = [];
      operations = 0;
      bytes = 0;
    }
    current.push(unit);
    operations += unit.operations.length;
    bytes += unit.bytes;
  }
  if (current.length > 0) transactions.push(current);
  return transactions;
}

function isGroup(group: ProposalGroup): group is readonly Proposal[] {
  return Array.isArray(group);
}

interface Draft {
  readonly compare: Compare[];
  readonly operations: Operation[];
  readonly names: Map<string, { readonly kind: Kind; readonly name: string }>;
}

function toUnit(proposals: readonly Proposal[], view: View, now: Timestamp): Unit | undefined {
  const draft: Draft = { compare: [], operations: [], names: new Map() };
  for (const proposal of proposals) if (!translate(proposal, draft, view, now)) return undefined;
  let bytes = 0;
  for (const operation of draft.operations) {
    bytes += OVERHEAD_BYTES + 2 * operation.key.length + (operation.type === "put" ? operation.value.length : 0);
  }
  if (draft.operations.length > TXN_OPERATIONS_MAX) {
    const count = draft.operations.length;
    throw new SwarmError("invalid_argument", `change of ${count} objects at once: at most ${TXN_OPERATIONS_MAX}`);
  }
  if (bytes > TXN_BYTES_MAX) {
    throw new SwarmError("invalid_argument", `change of ${bytes} bytes: at most ${TXN_BYTES_MAX}`);
  }
  return { proposals, ...draft, bytes };
}

/** Adds a proposal to the draft; false: the view shows that it cannot succeed. */
function translate<K extends Kind>(
  proposal: CreateProposal<K> | UpdateProposal<K> | DeleteProposal<K>,
  draft: Draft,
  view: View,
  now: Timestamp,
): boolean {
  switch (proposal.type) {
    case "create":
      translateCreate(proposal, draft, now);
      return true;
    case "update":
      translateUpdate(proposal, draft, view, now);
      return true;
    case "delete":
      return translateDelete(proposal, draft, view);
    default:
      return unreachable(proposal);
  }
}

function translateCreate<K extends Kind>(
  { kind, object, lease }: CreateProposal<K>,
  draft: Draft,
  now: Timestamp,
): void {
  const info = kinds[kind];
  const id = info.idOf(object);
  const key = objectKey(kind, id);
  draft.compare.push({ key, modRevision: 0 });
  draft.operations.push({ type: "put", key, value: info.encode(object, { createdAt: now, updatedAt: now }), lease });
  const name = info.nameOf(object);
  if (name === undefined) return;
  const guard = nameKey(kind, name);
  draft.compare.push({ key: guard, modRevision: 0 });
  draft.operations.push({ type: "put", key: guard, value: Buffer.from(id) });
  draft.names.set(guard, { kind, name });
}

function translateUpdate<K extends Kind>(
  { kind, object, version, lease }: UpdateProposal<K>,
  draft: Draft,
  view: View,
  now: Timestamp,
): void {
  const info = kinds[kind];
  const id = info.idOf(object);
  const key = objectKey(kind, id);
  const meta = info.metaOf(object);
  const expected = version ?? meta?.version ?? 0n;
  assert(expected > 0n, `update of ${key} without the version that was read`);
  const before = view.get(kind, id);
  const name = info.nameOf(object);
  if (before && info.nameOf(before) !== name) {
    throw new SwarmError("invalid_argument", `update ${kind} ${id}: a name cannot change`);
  }
  const value = info.encode(object, { createdAt: meta?.createdAt ?? now, updatedAt: now });
  draft.compare.push({ key, modRevision: Number(expected) });
  draft.operations.push({ type: "put", key, value, lease });
}

function translateDelete<K extends Kind>({ kind, id, version }: DeleteProposal<K>, draft: Draft, view: View): boolean {
  const key = objectKey(kind, id);
  const before = view.get(kind, id);
  const shown = view.version(kind, id);
  const name = before && kinds[kind].nameOf(before);
  if (kinds[kind].namesUnique) {
    // The name to free stands in the object: without the very object nothing can be deleted.
    if (name === undefined || (version !== undefined && version !== shown)) return false;
    draft.operations.push({ type: "delete", key: nameKey(kind, name) });
  }
  const expected = version ?? (name === undefined ? undefined : shown);
  if (expected !== undefined) draft.compare.push({ key, modRevision: Number(expected) });
  draft.operations.push({ type: "delete", key });
  return true;
}
