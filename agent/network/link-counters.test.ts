// Goal: a task's traffic is its own link's, the right way round. Method: what a kernel wrote, as text.
import { expect, test } from "vitest";
import type { TaskId } from "../../common/base/id.ts";
import { parseLinkCounters, readLinkCounters, taskTraffic } from "./link-counters.ts";

const TEXT = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    3193      29    0    0    0     0          0         0     3193      29    0    0    0     0       0          0
va1b2c3d4e50:9007199254740000 20 0 0 0 0 0 0 77 2 0 0 0 0 0 0
va1b2c3d4e51: 5 1 0 0 0 0 0 0 3 1 0 0 0 0 0 0
 eth0:1: 5 1 0 0 0 0 0 0 6 1 0 0 0 0 0 0
`;

test("each link has its bytes, whatever its name", () => {
  expect([...parseLinkCounters(TEXT)]).toEqual([
    ["lo", { receivedBytes: 3193, sentBytes: 3193 }],
    ["va1b2c3d4e50", { receivedBytes: 9007199254740000, sentBytes: 77 }],
    ["va1b2c3d4e51", { receivedBytes: 5, sentBytes: 3 }],
    ["eth0:1", { receivedBytes: 5, sentBytes: 6 }],
  ]);
  expect([...parseLinkCounters("")]).toEqual([]);
});

test("what the host's ends received the task sent; a task without a link has none", () => {
  const counters = parseLinkCounters(TEXT);
  expect(taskTraffic(counters, "a1b2c3d4e5f000000000000000" as TaskId)).toEqual({
    receivedBytes: 80,
    sentBytes: 9007199254740005,
  });
  expect(taskTraffic(counters, "b1b2c3d4e5f000000000000000" as TaskId)).toBeUndefined();
});

test("this machine has a loopback link", async () => {
  expect((await readLinkCounters()).get("lo")?.receivedBytes).toBeGreaterThanOrEqual(0);
});
