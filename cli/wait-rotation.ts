/** Waits until every node has followed to the cluster's new authority, and shows how far they are. */
import type { GetCaResponse } from "../proto/gen/swarm/v1/control_pb.js";
import type { Invocation } from "./command.ts";
import { anotherManager, isLostManager } from "./failover.ts";
import { rotationLines, rotationNews } from "./output/rotation-progress.ts";

/** Docker's. */
const POLL_MS = 200;

/** Answers the exit code: 0 when it is over, 130 after an interrupt, which the rotation outlives. */
export async function waitForRotation(invocation: Invocation): Promise<number> {
  const { io, clock, signal, flags } = invocation;
  const progress = new Progress(invocation);
  let client = await invocation.connect();
  try {
    while (true) {
      try {
        const state = await client.getCa({}, { signal });
        if (!flags.on("quiet")) progress.show(state);
        if (state.settled) {
          if (!flags.on("quiet")) io.out(`${state.root.trim()}\n`);
          return 0;
        }
      } catch (reason) {
        if (signal.aborted || !isLostManager(reason)) throw reason;
        client = await anotherManager(invocation, reason, signal);
      }
      await clock.sleep(POLL_MS, signal);
    }
  } catch (reason) {
    if (!signal.aborted) throw reason;
    io.err(
      "Operation continuing in background: nodes go on to renew. See 'swarmctl node ls --format \"{{.Hostname}} {{.TLSStatus}}\"'.\n",
    );
    return 130;
  }
}

class Progress {
  readonly #io: Invocation["io"];
  #drawn = 0;
  #said: readonly string[] = [];

  constructor({ io }: Invocation) {
    this.#io = io;
  }

  show(state: GetCaResponse): void {
    if (!this.#io.terminal) {
      const lines = rotationNews(state);
      for (const line of lines) if (!this.#said.includes(line)) this.#io.out(`${line}\n`);
      this.#said = lines;
      return;
    }
    const lines = rotationLines(state, this.#io.columns);
    const up = this.#drawn > 0 ? `\u001b[${this.#drawn}A\r` : "";
    this.#io.out(`${up}${lines.map((line) => `\u001b[2K${line}\n`).join("")}\u001b[J`);
    this.#drawn = lines.length;
  }
}
