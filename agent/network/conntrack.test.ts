/** Goal: containers that end together cost few looks at the kernel's table. Method: a netlink that keeps what it was asked. */
import { expect, test } from "vitest";
import { SwarmError } from "../../common/base/error.ts";
import { FakeClock } from "../../common/base/fake-clock.ts";
import { ConnectionSweeper } from "./conntrack.ts";
import type { Netlink } from "./netlink.ts";
import { dumpConnections } from "./nfnetlink.ts";

const { signal } = new AbortController();

function dumpOf(...addresses: readonly number[]): string {
  return Buffer.from(dumpConnections(4, { replySources: new Set(addresses) })).toString("hex");
}

class RecordingNetlink implements Netlink {
  readonly asked: string[] = [];
  refuse: (message: string) => boolean = () => false;

  async netlink(_: number, message: Uint8Array): Promise<Uint8Array> {
    const text = Buffer.from(message).toString("hex");
    this.asked.push(text);
    if (this.refuse(text)) throw new SwarmError("failed_precondition", "netlink: EMSGSIZE");
    return new Uint8Array();
  }
}

test("the first address is looked for at once, those that follow together", async () => {
  const [netlink, clock] = [new RecordingNetlink(), new FakeClock()];
  await using sweeper = new ConnectionSweeper(netlink, clock);
  await sweeper.forget(1, signal);
  expect(netlink.asked).toEqual([dumpOf(1)]);
  const others = [2, 3, 4].map((address) => sweeper.forget(address, signal));
  await clock.advance(100);
  await Promise.all(others);
  expect(netlink.asked).toEqual([dumpOf(1), dumpOf(2, 3, 4)]);
});

test("where all connections together are too many, each address is asked for alone", async () => {
  const netlink = new RecordingNetlink();
  netlink.refuse = (message) => message === dumpOf();
  await using sweeper = new ConnectionSweeper(netlink, new FakeClock());
  await Promise.all([sweeper.forget(1, signal), sweeper.forget(2, signal)]);
  expect(netlink.asked).toEqual([dumpOf(), dumpOf(1), dumpOf(2)]);
});

test("a failure is told to those who waited for it, and the next look is made all the same", async () => {
  const [netlink, clock] = [new RecordingNetlink(), new FakeClock()];
  await using sweeper = new ConnectionSweeper(netlink, clock);
  netlink.refuse = () => true;
  await expect(sweeper.forget(1, signal)).rejects.toThrow("EMSGSIZE");
  netlink.refuse = () => false;
  await sweeper.forget(2, signal);
  expect(netlink.asked).toEqual([dumpOf(1), dumpOf(2)]);
});
