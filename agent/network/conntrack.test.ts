/** Goal: containers that end together cost few looks at the kernel's table. Method: a netlink that keeps what it was asked. */
import { expect, test } from "vitest";
import { SwarmError } from "../../common/base/error.ts";
import { FakeClock } from "../../common/base/fake-clock.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { ConnectionSweeper } from "./conntrack.ts";
import type { Netlink } from "./netlink.ts";
import { dumpConnections, flushConnections } from "./nfnetlink.ts";

const { signal } = new AbortController();

function dumpOf(...addresses: readonly number[]): string {
  return Buffer.from(dumpConnections(4, { replySources: new Set(addresses) })).toString("hex");
}

function flushOf(address: number): string {
  return Buffer.from(flushConnections(address)).toString("hex");
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

function sweeperOf(netlink: Netlink, clock = new FakeClock()): ConnectionSweeper {
  return new ConnectionSweeper({ netlink, clock, logger: silentLogger });
}

const many = Array.from({ length: 9 }, (_, index) => 10 + index);

test("the first address is looked for at once, those that follow together", async () => {
  const [netlink, clock] = [new RecordingNetlink(), new FakeClock()];
  await using sweeper = sweeperOf(netlink, clock);
  await sweeper.forget([1], signal);
  expect(netlink.asked).toEqual([flushOf(1)]);
  const others = [2, 3].map((address) => sweeper.forget([address], signal));
  sweeper.forgetSoon(many);
  await clock.advance(100);
  await Promise.all(others);
  expect(netlink.asked).toEqual([flushOf(1), dumpOf(2, 3, ...many)]);
});

test("a kernel that cannot look by itself is asked for a list", async () => {
  const netlink = new RecordingNetlink();
  netlink.refuse = (message) => message === flushOf(1);
  await using sweeper = sweeperOf(netlink);
  await sweeper.forget([1, 2], signal);
  expect(netlink.asked).toEqual([flushOf(1), dumpOf(1, 2)]);
});

test("where all connections together are too many, each address is asked for alone", async () => {
  const netlink = new RecordingNetlink();
  netlink.refuse = (message) => message === dumpOf(...many);
  await using sweeper = sweeperOf(netlink);
  await sweeper.forget(many, signal);
  expect(netlink.asked).toEqual([dumpOf(...many), ...many.map(flushOf)]);
  netlink.refuse = (message) => message === dumpOf() || message === flushOf(1);
  netlink.asked.length = 0;
  await using another = sweeperOf(netlink);
  await another.forget([1, 2], signal);
  expect(netlink.asked).toEqual([flushOf(1), dumpOf(), flushOf(1), dumpOf(1), dumpOf(2)]);
});

test("a failure is told to those who waited for it, and the next look is made all the same", async () => {
  const [netlink, clock] = [new RecordingNetlink(), new FakeClock()];
  await using sweeper = sweeperOf(netlink, clock);
  netlink.refuse = () => true;
  sweeper.forgetSoon([1]);
  await expect(sweeper.forget([1], signal)).rejects.toThrow("EMSGSIZE");
  netlink.refuse = () => false;
  await sweeper.forget([2], signal);
  expect(netlink.asked).toEqual([flushOf(1), dumpOf(1), flushOf(2)]);
});
