/**
 * The store over a real etcd of its own, on this machine: what a commit costs when the view shows it, and how long a
 * manager takes to list a large store. Writer, view and etcd share the machine's cores.
 */
import { systemClock } from "../../common/base/clock.ts";
import { newId } from "../../common/base/id.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { systemRandom } from "../../common/base/random.ts";
import { Scope } from "../../common/base/scope.ts";
import { openStore } from "../../manager/store/open-store.ts";
import type { Proposal } from "../../manager/store/proposal.ts";
import type { Store } from "../../manager/store/store.ts";
import { startTestEtcd } from "../etcd.ts";
import { aTask } from "../objects.ts";
import type { Figure } from "./figure.ts";

const TASKS = 50_000;
const SINGLE_COMMITS = 200;

/** Creates and updates tasks in bulk, commits single ones in turn, lists all of it anew. */
export async function measureStore(): Promise<readonly Figure[]> {
  await using etcd = await startTestEtcd();
  const shared = { clock: systemClock, random: systemRandom, logger: silentLogger };
  await using scope = new Scope();
  const { signal } = scope;
  const store = await openStore({ ...shared, kv: etcd.connect() }, scope);
  const commit = async (proposals: readonly Proposal[]) => {
    const { conflicts } = await store.commit(proposals, { signal });
    if (conflicts.length > 0) throw new Error(`${conflicts.length} conflicts`);
  };
  const creations = newTasks(TASKS);
  const createMs = await timed(() => commit(creations));
  const changes = updates(store);
  const updateMs = await timed(() => commit(changes));
  const singleMs = await timed(async () => {
    for (let round = 0; round < SINGLE_COMMITS; round++) await commit(newTasks(1));
  });
  await using lateScope = new Scope();
  const listMs = await timed(() => openStore({ ...shared, kv: etcd.connect() }, lateScope));
  return [
    { name: "store: create 1,000 tasks (of 50,000), until seen", value: (createMs / TASKS) * 1000, unit: "ms" },
    { name: "store: update 1,000 tasks (of 50,000), until seen", value: (updateMs / TASKS) * 1000, unit: "ms" },
    { name: "store: one commit, until seen", value: singleMs / SINGLE_COMMITS, unit: "ms" },
    { name: "store: a manager lists 50,000 tasks", value: listMs, unit: "ms" },
  ];
}

function newTasks(count: number): Proposal[] {
  return Array.from({ length: count }, (_, index) => {
    const object = aTask({ id: newId(systemRandom), slot: index + 1 });
    return { type: "create", kind: "task", object };
  });
}

function updates(store: Store): Proposal[] {
  return [...store.view.tasks.values()].map((task) => {
    return { type: "update", kind: "task", object: { ...task, address: "10.224.0.7/12" } };
  });
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await work();
  return performance.now() - startMs;
}
