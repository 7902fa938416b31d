/** Goal: a host holds as many tasks as its memory does. Method: 2,500 containers of one network namespace, which takes a minute. */
import { expect } from "vitest";
import { newId, type TaskId } from "../../common/base/id.ts";
import { systemRandom } from "../../common/base/random.ts";
import { type ContainerStarted, Lab } from "../../test/network-lab.ts";
import { rootTest } from "../../test/privileges.ts";

function taskId(): TaskId {
  return newId<TaskId>(systemRandom);
}

function fetch(host: string): readonly string[] {
  return ["timeout", "2", "busybox", "wget", "-qO-", `http://${host}/`];
}

rootTest("2,500 tasks of a host have links, and the last is on the network", { timeout: 300_000 }, async () => {
  await using lab = await Lab.open();
  await lab.ask({ do: "open", pool: "10.224.0.0/12" });
  const first = { taskId: taskId(), addresses: ["10.224.0.7/12"] };
  await lab.host.serveHttp(first, "first");
  let last: ContainerStarted | undefined;
  for (let index = 1; index < 2_500; index++) {
    const task = { taskId: taskId(), addresses: [`10.225.${index >> 7}.${(index & 127) + 1}/12`] };
    last = (await lab.ask({ do: "attach", task, command: ["busybox", "sleep", "600"] })) as ContainerStarted;
  }
  if (last === undefined) throw new Error("none");
  expect(await lab.inContainer(last, ...fetch("10.224.0.7"))).toBe("first");
  expect((await lab.inHost("ip", "-o", "link", "show", "type", "veth")).split("\n").length).toBeGreaterThan(2_500);
});
