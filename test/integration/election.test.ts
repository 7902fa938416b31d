import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { newId } from "../../common/base/id.ts";
import { systemRandom } from "../../common/base/random.ts";
import type { EtcdKv } from "../../manager/store/etcd-kv.ts";
import { parseKey, ROOT } from "../../manager/store/keys.ts";
import { kinds } from "../../manager/store/kinds.ts";
import { startTestEtcd, type TestEtcd } from "../etcd.ts";
import { eventually } from "../eventually.ts";

interface Said {
  readonly event: "leads" | "demoted";
  readonly epoch: number;
  readonly atMs: number;
}

interface Candidate {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly said: readonly Said[];
}

/**
 * Goal: faults F1 and F2. Method: real managers' elections in processes of their own over a real etcd, killed or
 * stopped from outside; then H4 is read from etcd's whole history.
 */
describe("the election over etcd", () => {
  let etcd: TestEtcd;
  let candidates: Candidate[] = [];
  beforeEach(async () => {
    etcd = await startTestEtcd();
  });
  afterEach(async () => {
    for (const { child } of candidates) child.kill("SIGKILL");
    candidates = [];
    await etcd[Symbol.asyncDispose]();
  });

  const start = (): Candidate => {
    const script = new URL("../candidate.ts", import.meta.url).pathname;
    const child = spawn(process.execPath, [script, etcd.endpoint, newId(systemRandom)], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const said: Said[] = [];
    createInterface({ input: child.stdout }).on("line", (line) => said.push(JSON.parse(line) as Said));
    const candidate = { child, pid: child.pid ?? 0, said };
    candidates.push(candidate);
    return candidate;
  };
  const leader = () =>
    eventually(() => {
      const leading = candidates.filter(
        ({ child, said }) => child.exitCode === null && child.signalCode === null && said.at(-1)?.event === "leads",
      );
      expect(leading).toHaveLength(1);
      return leading[0] as Candidate;
    });

  test("a killed leader is replaced; its writes end with its epoch", async () => {
    start();
    await leader();
    start();
    start();
    for (let round = 0; round < 3; round++) {
      const first = await leader();
      const epoch = first.said.at(-1)?.epoch ?? 0;
      await writesOf(etcd.connect(), epoch, 5);
      first.child.kill("SIGKILL");
      await eventually(() => expect(first.child.signalCode).toBe("SIGKILL"));
      const second = await leader();
      const said = second.said.at(-1);
      expect(said?.epoch).toBeGreaterThan(epoch);
      start();
    }
    await checkFencing(etcd.connect());
  });

  test("a leader that was stopped past its TTL writes nothing afterwards and steps down within a second", async () => {
    start();
    const first = await leader();
    const second = start();
    const epoch = first.said.at(-1)?.epoch ?? 0;
    await writesOf(etcd.connect(), epoch, 5);
    process.kill(first.pid, "SIGSTOP");
    await eventually(() => expect(second.said.at(-1)?.event).toBe("leads"));
    const next = second.said.at(-1)?.epoch ?? 0;
    await writesOf(etcd.connect(), next, 500);
    const resumedMs = Date.now();
    process.kill(first.pid, "SIGCONT");
    const demoted = await eventually(() => {
      const said = first.said.at(-1);
      expect(said).toMatchObject({ event: "demoted", epoch });
      return said;
    });
    expect((demoted?.atMs ?? Infinity) - resumedMs).toBeLessThan(1_000);
    await writesOf(etcd.connect(), next, 1_000);
    await checkFencing(etcd.connect());
  });

  test("a leader that is asked to stop hands over at once", async () => {
    start();
    const first = await leader();
    const second = start();
    await writesOf(etcd.connect(), first.said.at(-1)?.epoch ?? 0, 200);
    const stoppedMs = Date.now();
    first.child.kill("SIGTERM");
    await eventually(() => expect(second.said.at(-1)?.event).toBe("leads"));
    const gapMs = (second.said.at(-1)?.atMs ?? Infinity) - stoppedMs;
    expect(gapMs).toBeLessThan(1_500);
    await checkFencing(etcd.connect());
  });
});

const { signal } = new AbortController();

/** Waits until a leader of this epoch has written so many tasks. */
async function writesOf(kv: EtcdKv, epoch: number, count: number): Promise<void> {
  await eventually(
    async () => {
      let writes = 0;
      for (const { address } of await history(kv)) if (address === String(epoch)) writes += 1;
      expect(writes).toBeGreaterThanOrEqual(count);
    },
    { intervalMs: 200 },
  );
}

/** H4: in etcd's history no write of an epoch follows the start of a later one. */
async function checkFencing(kv: EtcdKv): Promise<void> {
  let newest = 0;
  for (const { address, modRevision } of await history(kv)) {
    const epoch = Number(address);
    expect(epoch, `write at revision ${modRevision}`).toBeGreaterThanOrEqual(newest);
    newest = epoch;
  }
  expect(newest).toBeGreaterThan(0);
}

async function history(kv: EtcdKv): Promise<{ readonly address: string; readonly modRevision: number }[]> {
  const { revision } = await kv.range({ from: { key: ROOT }, limit: 1 }, signal);
  const writes = [];
  for await (const step of kv.watch({ prefix: ROOT, fromRevision: 1 }, signal)) {
    if (step.type === "compacted") break;
    for (const event of step.events) {
      const key = parseKey(event.key);
      if (event.type !== "put" || key?.type !== "object" || key.kind !== "task") continue;
      writes.push({
        address: kinds.task.decode(event.value, event.modRevision).address,
        modRevision: event.modRevision,
      });
    }
    // The leader goes on writing: what was there at the start is enough.
    if (step.revision >= revision) break;
  }
  return writes;
}
