import { setTimeout as pause } from "node:timers/promises";
import { FakeClock } from "../../common/base/fake-clock.ts";
import { MemoryKv } from "../../manager/store/memory-kv.ts";
import { startTestEtcd } from "../etcd.ts";
import { describeKv } from "./kv.contract.ts";

describeKv("etcd", async () => {
  const etcd = await startTestEtcd();
  const kv = etcd.connect();
  return {
    kv,
    compact: (revision) => kv.compact(revision, new AbortController().signal),
    // The contract's own time must pass: etcd's clock cannot be stepped.
    pass: (delayMs) => pause(delayMs),
    [Symbol.asyncDispose]: () => etcd[Symbol.asyncDispose](),
  };
});

describeKv("memory", async () => {
  const clock = new FakeClock();
  const kv = new MemoryKv(clock);
  return {
    kv,
    compact: async (revision) => kv.compact(revision),
    pass: (delayMs) => clock.advance(delayMs),
    [Symbol.asyncDispose]: async () => kv[Symbol.dispose](),
  };
});
