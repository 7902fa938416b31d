/** Tasks that talk without a pause, and tell whether they are heard. */
import { createInterface } from "node:readline";
import type { ContainerStarted, Lab } from "../../network-lab.ts";

const PORT = 8000;

/**
 * Answers whoever speaks to it, and says something to each of the addresses every 50 ms, in packets that nearly fill the
 * link's 1,390 bytes. Each carries when it was sent; so does its answer. Of its input a line `heard` is answered once all
 * have answered what was sent after it or after ten seconds, with who has not, `tries` once five packets more have gone to each, with who has answered one of
 * those, and `silence` at once, with the longest time that an answer of anybody took to come after the last.
 */
const TALKER = `
const [size, everyMs] = [1300, 50];
const bind = (socket) => socket.on("error", () => {}).bind(${PORT});
const listening = { udp4: bind(require("dgram").createSocket("udp4")), udp6: bind(require("dgram").createSocket({ type: "udp6", ipv6Only: true })) };
const flows = process.argv.slice(1).map((to) => ({ to, socket: listening[to.includes(":") ? "udp6" : "udp4"], sent: 0, heard: -1, last: 0, silence: 0 }));
for (const socket of Object.values(listening)) socket.on("message", (data, from) => {
  if (data[8] === 0) {
    data[8] = 1;
    return socket.send(data, from.port, from.address, () => {});
  }
  const flow = flows.find(({ to }) => to === from.address);
  const now = performance.now();
  if (flow.last > 0) flow.silence = Math.max(flow.silence, now - flow.last);
  flow.last = now;
  flow.heard = Math.max(flow.heard, data.readDoubleLE());
  check();
});
let waiting = () => false;
const check = () => { if (waiting()) waiting = () => false };
setInterval(() => {
  for (const flow of flows) {
    const data = Buffer.alloc(size);
    data.writeDoubleLE(performance.now());
    flow.socket.send(data, ${PORT}, flow.to, () => {});
    flow.sent++;
  }
  check();
}, everyMs);
const say = (what) => { console.log(JSON.stringify(what)); return true };
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const now = performance.now();
  const answered = () => flows.filter(({ heard }) => heard > now).map(({ to }) => to);
  const enough = flows.map(({ sent }) => sent + 6);
  waiting = {
    heard: () => (answered().length === flows.length || performance.now() > now + 10_000) && say(flows.map(({ to }) => to).filter((to) => !answered().includes(to))),
    tries: () => flows.every(({ sent }, which) => sent >= enough[which]) && say(answered()),
    silence: () => say(Math.max(...flows.map(({ last, silence }) => Math.max(silence, now - last)))) && (flows.forEach((flow) => { flow.silence = 0 }), true),
  }[line];
  check();
});`;

/** A process in a container that talks with others of its kind. */
export class Talk {
  readonly #process: ReturnType<Lab["startIn"]>;
  readonly #answers: AsyncIterator<string>;

  /** Talks to the addresses from the container `from`. */
  constructor(lab: Lab, from: ContainerStarted, to: readonly string[]) {
    this.#process = lab.startIn(from, process.execPath, "-e", TALKER, ...to);
    this.#answers = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();
  }

  /** Waits until all others have answered what was said from now on; returns who has not within ten seconds. */
  async unheard(): Promise<unknown> {
    return this.#ask("heard");
  }

  /** Says something more to all, and returns who has answered any of it. */
  async tries(): Promise<unknown> {
    return this.#ask("tries");
  }

  /** The longest time since this was last asked in which somebody's answers did not come, in ms. */
  async silence(): Promise<number> {
    return Number(await this.#ask("silence"));
  }

  async #ask(what: "heard" | "tries" | "silence"): Promise<unknown> {
    this.#process.stdin.write(`${what}\n`);
    const { value, done } = await this.#answers.next();
    if (done) throw new Error("the talk ended");
    return JSON.parse(value);
  }
}
