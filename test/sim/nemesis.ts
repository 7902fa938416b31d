/**
 * Decides what breaks, and when. Each run draws how hard and how often each kind of fault strikes, some not at all (swarm
 * testing): a run in which everything breaks at once finds less than many that each go far in few directions.
 */
import type { Random } from "../../common/base/random.ts";
import { pick } from "../../common/base/random.ts";
import { between, chance } from "./chance.ts";
import { STORE } from "./sim-kv.ts";
import type { ManagerMember, NodeMember, World } from "./world.ts";

/** One kind of fault and what it does. */
interface Fault {
  readonly name: string;
  /** The mean time between two strikes, in ms. */
  readonly everyMs: number;
  strike(): void;
}

const HOUR_MS = 3_600_000;

export class Nemesis {
  readonly #world: World;
  readonly #random: Random;
  #active = true;

  constructor(world: World, random: Random) {
    this.#world = world;
    this.#random = random;
  }

  /** Sets the lasting faults and starts those that strike from time to time, until `end`. */
  begin(): void {
    this.#setLasting();
    for (const fault of this.#faults()) {
      // Half of the kinds do not occur in a run.
      if (chance(this.#random, 0.5)) continue;
      const everyMs = fault.everyMs * between(this.#random, 0.3, 3);
      this.#world.log.add("nemesis", `${fault.name} every ${Math.round(everyMs)} ms`);
      void this.#repeat(fault, everyMs);
    }
  }

  /** No more strikes; what is broken is the world's to heal. */
  end(): void {
    this.#active = false;
  }

  #setLasting(): void {
    const { storeFaults, wireFaults, hostFaults } = this.#world;
    const sometimes = (most: number) => (chance(this.#random, 0.5) ? between(this.#random, 0, most) : 0);
    storeFaults.latencyMsMax = 1 + sometimes(40);
    storeFaults.diskMsMax = sometimes(30);
    storeFaults.unavailable = sometimes(0.05);
    storeFaults.answerLost = sometimes(0.05);
    wireFaults.latencyMsMax = 1 + sometimes(100);
    wireFaults.reset = sometimes(0.02);
    hostFaults.stepFails = sometimes(0.15);
    hostFaults.stepFailsForNow = sometimes(0.2);
    hostFaults.crashes = sometimes(0.5);
    hostFaults.unhealthy = sometimes(0.1);
    hostFaults.diskMsMax = sometimes(50);
  }

  async #repeat({ strike, name }: Fault, everyMs: number): Promise<void> {
    while (true) {
      await this.#world.clock.sleep(everyMs * between(this.#random, 0.2, 1.8));
      if (!this.#active) return;
      this.#world.log.add("nemesis", name);
      strike();
    }
  }

  #faults(): readonly Fault[] {
    const { managers, nodes, network, storeFaults } = this.#world;
    const manager = () => pick(this.#random, managers);
    const node = () => pick(this.#random, nodes);
    return [
      { name: "kill a manager", everyMs: 15_000, strike: () => this.#crash(manager(), 5_000) },
      { name: "terminate a manager", everyMs: 20_000, strike: () => this.#terminate(manager()) },
      { name: "stop a manager", everyMs: 12_000, strike: () => this.#pause(manager(), 10_000) },
      { name: "kill an agent", everyMs: 8_000, strike: () => this.#crash(node(), 5_000) },
      { name: "kill an agent for long", everyMs: 25_000, strike: () => this.#crash(node(), 30_000) },
      { name: "terminate an agent", everyMs: 15_000, strike: () => this.#terminate(node()) },
      { name: "stop an agent", everyMs: 12_000, strike: () => this.#pause(node(), 10_000) },
      { name: "reboot a host", everyMs: 20_000, strike: () => this.#reboot(node()) },
      {
        name: "cut a manager from the store",
        everyMs: 12_000,
        strike: () => this.#cut(manager()?.name, STORE, 12_000),
      },
      {
        name: "cut a node from a manager",
        everyMs: 6_000,
        strike: () => this.#cut(node()?.name, manager()?.name, 12_000),
      },
      {
        name: "cut a node from all managers",
        everyMs: 15_000,
        strike: () => {
          const name = node()?.name;
          for (const each of managers) this.#cut(name, each.name, 15_000);
        },
      },
      { name: "break a node's connections", everyMs: 6_000, strike: () => network.wire.disconnect(node()?.name ?? "") },
      { name: "skew a manager's clock", everyMs: 10_000, strike: () => this.#skew(manager()) },
      { name: "skew a node's clock", everyMs: 10_000, strike: () => this.#skew(node()) },
      {
        name: "slow the store's disk",
        everyMs: 15_000,
        strike: () => {
          const before = storeFaults.diskMsMax;
          storeFaults.diskMsMax = between(this.#random, 200, 1_500);
          this.#later(8_000, () => {
            storeFaults.diskMsMax = before;
          });
        },
      },
      { name: "compact the store", everyMs: 5_000, strike: () => this.#world.compact() },
    ];
  }

  /** Does something after up to `delayMsMax`, unless the faults are over by then. */
  #later(delayMsMax: number, act: () => void): void {
    void this.#world.clock.sleep(between(this.#random, 0, delayMsMax)).then(() => {
      if (this.#active) act();
    });
  }

  #crash(member: ManagerMember | NodeMember | undefined, awayMsMax: number): void {
    if (!member) return;
    this.#world.kill(member);
    this.#later(awayMsMax, () => this.#world.start(member));
  }

  #terminate(member: ManagerMember | NodeMember | undefined): void {
    if (!member) return;
    void member.terminate().then(() => this.#later(3_000, () => this.#world.start(member)));
  }

  #pause(member: ManagerMember | NodeMember | undefined, awayMsMax: number): void {
    const process = member?.process;
    if (!process) return;
    this.#world.log.add(process.name, "is stopped");
    process.stop();
    this.#later(awayMsMax, () => {
      this.#world.log.add(process.name, "goes on");
      process.resume();
    });
  }

  #reboot(member: NodeMember | undefined): void {
    if (!member) return;
    this.#world.kill(member);
    member.host.reboot();
    this.#later(8_000, () => this.#world.start(member));
  }

  #cut(one: string | undefined, other: string | undefined, awayMsMax: number): void {
    if (one === undefined || other === undefined) return;
    this.#world.log.add(one, `is cut from ${other}`);
    this.#world.network.cut(one, other);
    this.#later(awayMsMax, () => {
      this.#world.log.add(one, `is joined to ${other}`);
      this.#world.network.join(one, other);
    });
  }

  #skew(member: ManagerMember | NodeMember | undefined): void {
    if (!member) return;
    const mostMs = chance(this.#random, 0.5) ? 5_000 : HOUR_MS;
    this.#world.skew(member, Math.round(between(this.#random, -mostMs, mostMs)));
  }
}
