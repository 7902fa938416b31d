/** Goal: what /proc says is read right, and the whole command works on this host. Method: texts of real kernels; the real command. */
import { createServer } from "node:net";
import { expect, test } from "vitest";
import { systemClock } from "../../common/base/clock.ts";
import { rootTest } from "../../test/privileges.ts";
import { runSwarmctl } from "../../test/swarmctl.ts";
import { TRIALS } from "./facts.ts";
import { probeHost, readListeners, readMounts } from "./probe.ts";
import { readResults } from "./trial.ts";

const never = new AbortController().signal;

test("mounts", () => {
  const mountinfo =
    "29 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n" +
    "31 29 0:26 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\n";
  expect(readMounts(mountinfo)).toEqual([
    { path: "/", type: "ext4", options: ["rw", "discard"] },
    { path: "/sys/fs/cgroup/memory", type: "cgroup", options: ["rw", "memory"] },
  ]);
});

test("listeners, and no other sockets", () => {
  const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0949 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0
   1: 0100007F:0948 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000 20 4 30 10 -1
`;
  expect([...readListeners(table)]).toEqual([[2377, "4711"]]);
});

test("results of trials; other lines are none", () => {
  const output = "overlay works\nveth fails Error: Unknown device type.\nnat untried nft\nnonsense\nmoon works\n";
  expect([...readResults(output)]).toEqual([
    ["overlay", { type: "works" }],
    ["veth", { type: "fails", reason: "Error: Unknown device type." }],
    ["nat", { type: "untried", program: "nft" }],
  ]);
});

rootTest("this host: everything is tried, and nothing of it is left", async () => {
  const facts = await probeHost(systemClock, never);
  expect(facts.trials).toMatchObject({
    type: "tried",
    results: { overlay: { type: "works" }, nat: { type: "works" } },
  });
  expect(facts.trials.type === "tried" ? Object.keys(facts.trials.results).toSorted() : []).toEqual(TRIALS.toSorted());
  expect(facts.disk.freeBytes).toBeGreaterThan(0);
  const { mounts } = await probeHost(systemClock, never);
  expect(mounts).toEqual(facts.mounts);
});

rootTest("a port that somebody has is named with who has it", async () => {
  await using server = createServer();
  await new Promise<void>((resolve) => server.listen(2376, "127.0.0.1", resolve));
  const { code, out } = await runSwarmctl(["check", "--format", "json"]);
  const { Fit, Findings } = JSON.parse(out);
  expect([code, Fit]).toEqual([1, false]);
  expect(Findings).toContainEqual(
    expect.objectContaining({ Name: "port 2376", Level: "FAIL", Mend: `end it: kill ${process.pid}` }),
  );
});

test("roles are checked, and a template is as elsewhere", async () => {
  expect(await runSwarmctl(["check", "--role", "king"])).toMatchObject({
    code: 2,
    err: expect.stringContaining("--role"),
  });
  expect((await runSwarmctl(["check", "--role", "worker", "--format", "{{.Role}}"])).out).toBe("worker\n");
});
