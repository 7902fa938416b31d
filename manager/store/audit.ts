import { parseKey, ROOT } from "./keys.ts";
import { type Kv, readPages } from "./kv.ts";
import type { ViewState } from "./view.ts";

export interface AuditContext {
  readonly kv: Kv;
  readonly state: ViewState;
  /** Keys that events touch while the audit runs: of these the store and the view may rightly differ. */
  readonly touched: ReadonlySet<string>;
  /** Waits until the view has come to a revision, or long enough. */
  catchUp(revision: number): Promise<void>;
}

/**
 * Compares the view with the store by keys and revisions only, while the watch goes on. Returns the first difference
 * in words, undefined for none.
 *
 * Every event after the audit's start is in `touched`, so untouched keys must stand in the view just as they stand in
 * the store at the listed revision.
 */
export async function auditView(context: AuditContext, signal: AbortSignal): Promise<string | undefined> {
  const { state, touched } = context;
  let listed = 0;
  let caughtUp = false;
  for await (const page of readPages(context.kv, { prefix: ROOT, keysOnly: true }, signal)) {
    if (!caughtUp) await context.catchUp(page.revision);
    caughtUp = true;
    for (const { key, modRevision } of page.entries) {
      const parsed = parseKey(key);
      if (parsed?.type !== "object" || touched.has(key)) continue;
      listed += 1;
      const here = state.modRevision(parsed.kind, parsed.id);
      if (here !== modRevision) return `${key}: revision ${here} here, ${modRevision} in the store`;
    }
  }
  let held = state.size;
  for (const key of touched) if (isHeld(state, key)) held -= 1;
  return held === listed ? undefined : `${held} objects here, ${listed} in the store`;
}

function isHeld(state: ViewState, key: string): boolean {
  const parsed = parseKey(key);
  return parsed?.type === "object" && state.get(parsed.kind, parsed.id) !== undefined;
}
