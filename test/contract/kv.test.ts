import { setTimeout as pause } from "node:timers/promises";
import { systemClock } from "../../common/base/clock.ts";
import { MemoryKv } from "../../manager/store/memory-kv.ts";
import { startTestEtcd } from "../etcd.ts";
import { describeKv } from "./kv.contract.ts";

describeKv("etcd", async () => {
  const etcd = await startTestEtcd();
  const kv = etcd.connect();
  return {
    kv,
    compact: (revision) => kv.compact(revision, new AbortController().signal),
    // etcd's own clock cannot be stepped.
    pass: (delayMs) => pause(delayMs),
    [Symbol.asyncDispose]: () => etcd[Symbol.asyncDispose](),
  };
});

describeKv("memory", async () => {
  const kv = new MemoryKv(systemClock);
  return {
    kv,
    compact: async (revision) => kv.compact(revision),
    pass: (delayMs) => pause(delayMs),
    [Symbol.asyncDispose]: async () => kv[Symbol.dispose](),
  };
});
