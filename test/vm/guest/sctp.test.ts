/**
 * Goal: published SCTP ports and virtual addresses lead where TCP's do, with the client's own address. Method: two network
 * namespaces as hosts and one as a client, in a kernel that has SCTP.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import { newId, type TaskId } from "../../../common/base/id.ts";
import { systemRandom } from "../../../common/base/random.ts";
import { eventually } from "../../eventually.ts";
import { CLIENT_ADDRESS, type ContainerStarted, Lab, type TestCluster } from "../../network-lab.ts";

const VIP = "10.0.1.2";
const ADDRESSES = ["10.0.1.11", "10.0.1.12"];
const PORT = 5000;

let lab: Lab;
const containers: ContainerStarted[] = [];

function ask(host: string, port = PORT): readonly string[] {
  return [lab.helper, "sctp-ask", host, `${port}`];
}

beforeAll(async () => {
  lab = await Lab.open(2);
  for (const [index, host] of lab.hosts.entries()) {
    const addresses = [`${ADDRESSES[index]}/24`];
    await host.ask({ do: "open", pool: "10.224.0.0/12", local: host.address });
    const task = { taskId: newId<TaskId>(systemRandom), addresses };
    const command = [lab.helper, "sctp-serve", `${PORT}`, `t${index + 1}`];
    containers.push((await host.ask({ do: "attach", task, command })) as ContainerStarted);
    const [other = ""] = ADDRESSES.filter((_, each) => each !== index);
    const cluster: TestCluster = {
      networks: [{ subnet: "10.0.1.0/24" }],
      hosts: [`192.0.2.${2 - index}`],
      remote: { [other]: `192.0.2.${2 - index}` },
      virtual: { [VIP]: ADDRESSES },
      published: [{ protocol: "sctp", port: 8080, targets: ADDRESSES.map((address) => ({ address, port: PORT })) }],
      served: ADDRESSES.map((address) => `${address}:${PORT}/sctp`),
    };
    await host.ask({ do: "cluster", cluster });
  }
  const [first] = containers;
  if (first) for (const address of ADDRESSES) await eventually(() => lab.inContainer(first, ...ask(address)));
});
afterAll(() => lab?.[Symbol.asyncDispose]());

test("a published port leads to the tasks of all hosts from each, with the client's own address", async () => {
  for (const { address } of lab.hosts) {
    const heard = new Set<string>();
    await eventually(async () => {
      heard.add(await lab.inClient(...ask(address, 8080)));
      expect(heard).toEqual(new Set([`t1 ${CLIENT_ADDRESS}`, `t2 ${CLIENT_ADDRESS}`]));
    });
  }
});

test("a virtual address is dealt to all tasks, as whom the asker speaks to them", async () => {
  const [first] = containers;
  if (first === undefined) throw new Error("no container");
  const heard = new Set<string>();
  await eventually(async () => {
    heard.add(await lab.inContainer(first, ...ask(VIP)));
    expect(heard).toEqual(new Set(["t1 10.0.1.1", "t2 10.0.1.11"]));
  });
});
