// Goal: counters become docker stats' words. Method: tables of rounds and of screens.
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { TaskStatsSchema, TaskUsageSchema } from "../../proto/gen/swarm/v1/control_pb.js";
import { cpuPercent, statsRows, statsScreen, unreachableText } from "./stats-rows.ts";

const SECOND = 1_000_000_000n;
const usage = (init: MessageInitShape<typeof TaskUsageSchema> = {}) => create(TaskUsageSchema, init);
const stats = (name: string, used?: MessageInitShape<typeof TaskUsageSchema>) =>
  create(TaskStatsSchema, { taskId: `id-of-${name}-long`, name, nodeHostname: "node-1", ...(used && { usage: used }) });

test.each([
  ["half of a processor", { cpuNanos: SECOND / 2n, monotonicNanos: SECOND }, 50],
  ["two and a half", { cpuNanos: (SECOND * 5n) / 2n, monotonicNanos: SECOND }, 250],
  ["nothing", { cpuNanos: 0n, monotonicNanos: SECOND }, 0],
  ["no time between", { cpuNanos: 1n, monotonicNanos: 0n }, undefined],
  ["a node that began anew", { cpuNanos: 1n, monotonicNanos: -SECOND }, undefined],
  ["counters that began anew", { cpuNanos: -1n, monotonicNanos: SECOND }, undefined],
])("a processor's share: %s", (_, { cpuNanos, monotonicNanos }, expected) => {
  const base = { cpuNanos: 7n * SECOND, monotonicNanos: 9n * SECOND };
  const after = { cpuNanos: base.cpuNanos + cpuNanos, monotonicNanos: base.monotonicNanos + monotonicNanos };
  expect(cpuPercent(usage(base), usage(after))).toBe(expected);
});

describe("rows", () => {
  const cells = (used: MessageInitShape<typeof TaskUsageSchema> | undefined) => {
    const [row] = statsRows([stats("web.1", used)], new Map(), { fullIds: false });
    const { ID: _, Container: __, Name: ___, Node: ____, ...rest } = row ?? {};
    return rest;
  };

  test("say what is known", () => {
    const GiB = 1n << 30n;
    expect(
      cells({
        ...{ memoryBytes: GiB + GiB / 2n, memoryLimitBytes: 6n * GiB, pids: 12n },
        ...{ network: { in: 1_999n, out: 0n }, block: { in: 12_345_678n, out: 999n } },
      }),
    ).toEqual({
      ...{ CPUPerc: "--", MemUsage: "1.5GiB / 6GiB", MemPerc: "25.00%", PIDs: "12" },
      ...{ NetIO: "2kB / 0B", BlockIO: "12.3MB / 999B" },
    });
  });

  test("say what is not", () => {
    const nothing = { CPUPerc: "--", MemUsage: "-- / --", MemPerc: "--", NetIO: "--", BlockIO: "--", PIDs: "--" };
    expect(cells(undefined)).toEqual(nothing);
    expect(cells({ pids: 1n })).toMatchObject({ MemUsage: "0B / 0B", MemPerc: "--", NetIO: "--" });
  });

  test("stand in order of service and slot, with short ids or whole ones", () => {
    const tasks = ["web.10", "db.1", "web.2"].map((name) => stats(name, {}));
    const names = (fullIds: boolean) => statsRows(tasks, new Map(), { fullIds }).map(({ Name, ID }) => `${Name} ${ID}`);
    expect(names(false)).toEqual(["db.1 id-of-db.1-l", "web.2 id-of-web.2-", "web.10 id-of-web.10"]);
    expect(names(true)).toEqual(["db.1 id-of-db.1-long", "web.2 id-of-web.2-long", "web.10 id-of-web.10-long"]);
  });
});

test.each([
  [["web.1", "web.2"], "node-2 cannot be asked (down): skipped web.1, web.2"],
  [[], "node-2 cannot be asked (down)"],
  [
    Array.from({ length: 12 }, (_, index) => `w.${index}`),
    "node-2 cannot be asked (down): skipped w.0, w.1, w.2, w.3, w.4, w.5, w.6, w.7, w.8, w.9 and 2 more",
  ],
])("a node that is skipped: %j", (taskNames, expected) => {
  expect(
    unreachableText({ $typeName: "swarm.v1.UnreachableNode", hostname: "node-2", reason: "down", taskNames }),
  ).toBe(expected);
});

describe("a screen", () => {
  const shown = (table: readonly string[], notes: readonly string[], rows: number, columns: number) =>
    statsScreen(table, notes, { rows, columns }).split("\u001b[K\n");

  test("is drawn from the top, and what was below is wiped", () => {
    expect(statsScreen(["head", "one"], [], { rows: 25, columns: 80 })).toBe(
      "\u001b[Hhead\u001b[K\none\u001b[K\n\u001b[J",
    );
  });

  test("is never lower than the terminal, and notes have their place", () => {
    const table = ["head", "1", "2", "3", "4", "5"];
    expect(shown(table, [], 7, 80)).toHaveLength(7);
    expect(shown(table, [], 6, 80)).toEqual(["\u001b[Hhead", "1", "2", "3", "… and 2 more", "\u001b[J"]);
    expect(shown(table, ["note"], 6, 80)).toEqual(["\u001b[Hhead", "1", "2", "… and 3 more", "note", "\u001b[J"]);
    // Without a window there is nothing to fit into.
    expect(shown(table, ["note"], 0, 0)).toHaveLength(8);
    // Longer lines take two rows.
    expect(shown(["head", "12345", "67890", "12345"], [], 6, 4)).toEqual([
      "\u001b[Hhead",
      "12345",
      "… and 2 more",
      "\u001b[J",
    ]);
  });
});
