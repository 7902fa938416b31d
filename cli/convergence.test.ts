import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import {
  type ServiceView,
  ServiceViewSchema,
  type TaskView,
  TaskViewSchema,
} from "../proto/gen/swarm/v1/control_pb.js";
import { TaskState, UpdateStatus_State } from "../proto/gen/swarm/v1/types_pb.js";
import { assess, type Verdict } from "./convergence.ts";
import { progressLines, progressNews } from "./output/progress.ts";

function service(desired: number, update?: UpdateStatus_State): ServiceView {
  const updateStatus = update === undefined ? {} : { updateStatus: { state: update, message: "because" } };
  return create(ServiceViewSchema, {
    service: { id: "s", name: "web", specVersion: 2n, taskVersion: 2n, ...updateStatus },
    desiredTasks: BigInt(desired),
  });
}

let ids = 0;
function task(
  slot: number,
  state: TaskState,
  more: { attempt?: number; desired?: TaskState; version?: number; error?: string; message?: string } = {},
): TaskView {
  return create(TaskViewSchema, {
    serviceName: "web",
    task: {
      id: `t${++ids}`,
      slot,
      attempt: BigInt(more.attempt ?? 1),
      specVersion: BigInt(more.version ?? 2),
      desiredState: more.desired ?? TaskState.RUNNING,
      status: { state, error: more.error ?? "", message: more.message ?? "", container: { exitCode: 3 } },
    },
  });
}

function verdict(view: ServiceView, tasks: readonly TaskView[], rollback = false): Verdict {
  return assess({ service: view, tasks, before: new Set(), rollback, isCurrent: (version) => version >= 2n });
}

function said(given: Verdict): string {
  return given.kind === "failed" ? `failed: ${given.reason}${given.provisional ? " (provisional)" : ""}` : given.kind;
}

const { RUNNING, PENDING, FAILED, REJECTED, COMPLETE, SHUTDOWN, STARTING, NEW } = TaskState;

describe("verdicts", () => {
  test.each<[string, Verdict, string]>([
    ["none yet", verdict(service(2), []), "waiting"],
    ["zero replicas", verdict(service(0), []), "converged"],
    ["all run", verdict(service(2), [task(1, RUNNING), task(2, RUNNING)]), "converged"],
    ["one starts", verdict(service(2), [task(1, RUNNING), task(2, STARTING)]), "waiting"],
    ["one of an old version", verdict(service(1), [task(1, RUNNING, { version: 1 })]), "waiting"],
    ["scaled down", verdict(service(1), [task(1, RUNNING), task(2, SHUTDOWN, { desired: SHUTDOWN })]), "converged"],
    ["update under way", verdict(service(1, UpdateStatus_State.UPDATING), [task(1, RUNNING)]), "waiting"],
    ["update completed", verdict(service(1, UpdateStatus_State.COMPLETED), [task(1, RUNNING)]), "converged"],
    [
      "a registry that stays down, after half a minute",
      verdict(service(1), [
        task(1, REJECTED, { error: "connect: ECONNREFUSED", desired: SHUTDOWN }),
        task(1, TaskState.PREPARING, { attempt: 2, error: "connect: ECONNREFUSED" }),
      ]),
      "failed: task web.1 failed once, and its successor meets the same: rejected: connect: ECONNREFUSED",
    ],
    [
      "another fault than before",
      verdict(service(1), [
        task(1, REJECTED, { error: "connect: ECONNREFUSED", desired: SHUTDOWN }),
        task(1, TaskState.PREPARING, { attempt: 2, error: "status 503" }),
      ]),
      "waiting",
    ],
    [
      "update paused",
      verdict(service(1, UpdateStatus_State.PAUSED), [task(1, FAILED)]),
      "failed: service update paused: because; task web.1 failed with exit code 3",
    ],
    [
      "rolled back",
      verdict(service(1, UpdateStatus_State.ROLLBACK_COMPLETED), [task(1, RUNNING)]),
      "failed: service rolled back: because",
    ],
    [
      "rolled back after failures",
      verdict(service(5, UpdateStatus_State.ROLLBACK_COMPLETED), [
        task(1, FAILED, { version: 1, error: "task: non-zero exit (1)" }),
        task(1, REJECTED, { attempt: 2, error: "no such image: nope:1" }),
        task(1, RUNNING, { attempt: 3, version: 3 }),
        ...[2, 3, 4].map((slot) => task(slot, FAILED)),
      ]),
      "failed: service rolled back: because; task web.1 rejected: no such image: nope:1; task web.2 failed with exit code 3; task web.3 failed with exit code 3",
    ],
    [
      "rolled back as asked",
      verdict(service(1, UpdateStatus_State.ROLLBACK_COMPLETED), [task(1, RUNNING)], true),
      "converged",
    ],
    [
      "rollback paused",
      verdict(service(1, UpdateStatus_State.ROLLBACK_PAUSED), []),
      "failed: service rollback paused: because",
    ],
    ["one failure", verdict(service(1), [task(1, FAILED), task(1, NEW, { attempt: 2 })]), "waiting"],
    [
      "three failures",
      verdict(service(1), [
        task(1, REJECTED, { error: "no such image" }),
        task(1, REJECTED, { attempt: 2, error: "no such image" }),
        task(1, REJECTED, { attempt: 3, error: "no such image" }),
        task(1, NEW, { attempt: 4 }),
      ]),
      "failed: task web.1 failed 3 times: rejected: no such image",
    ],
    [
      "not restarted",
      verdict(service(1), [task(1, FAILED, { desired: SHUTDOWN, error: "exit 3" })]),
      "failed: task web.1 ended and is not restarted: failed: exit 3 (provisional)",
    ],
    ["a one-shot is done", verdict(service(1), [task(1, COMPLETE, { desired: SHUTDOWN })]), "converged"],
    [
      "no node fits",
      verdict(service(1), [task(1, PENDING, { message: "no suitable node (no resources)" })]),
      "waiting",
    ],
  ])("%s", (_, given, expected) => {
    expect(said(given)).toBe(expected);
  });

  test("failures from before the change do not count", () => {
    const old = [1, 2, 3].map((attempt) => task(1, FAILED, { attempt }));
    const before = new Set(old.map((view) => view.task?.id ?? ""));
    const picture = { service: service(1), tasks: [...old, task(1, NEW, { attempt: 4 })], before, rollback: false };
    expect(assess({ ...picture, isCurrent: () => true }).kind).toBe("waiting");
  });
});

describe("progress", () => {
  const { slots } = verdict(service(3), [
    task(1, RUNNING),
    task(2, TaskState.PREPARING),
    task(3, PENDING, { message: "no suitable node (insufficient memory on 2 nodes)" }),
  ]);

  test("a line per task on a terminal", () => {
    expect(progressLines({ slots, desired: 3, byNode: false }, 100).join("\n")).toMatchInlineSnapshot(`
      "overall progress: 1 out of 3 tasks
      1/3: running   [=================================================>]
      2/3: preparing [===========================>                      ]
      3/3: pending   no suitable node (insufficient memory on 2 nodes)"
    `);
  });

  test("a bar beyond twenty", () => {
    const many = verdict(
      service(30),
      Array.from({ length: 30 }, (_, index) => task(index + 1, index < 15 ? RUNNING : NEW)),
    );
    expect(progressLines({ slots: many.slots, desired: 30, byNode: false }, 100)).toMatchInlineSnapshot(`
      [
        "overall progress: 15 out of 30 tasks",
        "[=========================>                        ]",
      ]
    `);
  });

  test("plain lines say each thing once", () => {
    const shown = new Map<string, string>();
    const picture = { slots, desired: 3, byNode: false };
    expect(progressNews(picture, shown)).toMatchInlineSnapshot(`
      [
        "1/3: running",
        "2/3: starting",
        "3/3: pending: no suitable node (insufficient memory on 2 nodes)",
        "overall progress: 1 out of 3 tasks",
      ]
    `);
    expect(progressNews(picture, shown)).toEqual([]);
    expect(progressNews({ ...picture, verify: "Service web converged" }, shown)).toEqual([
      "verify: Service web converged",
    ]);
  });
});
