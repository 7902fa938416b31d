import { constants } from "node:os";
import { SwarmError } from "../common/base/error.ts";

const SIGRTMIN = 34;
const SIGRTMAX = 64;

/**
 * The number of a signal as users write it: `SIGTERM`, `term`, `15`, `SIGRTMIN+3`. Throws `invalid_argument` for what is
 * no signal (signal(7)).
 */
export function signalNumber(text: string): number {
  const name = text.trim().toUpperCase();
  const numeric = /^[0-9]+$/.test(name) ? Number(name) : undefined;
  if (numeric !== undefined && numeric >= 1 && numeric <= SIGRTMAX) return numeric;
  const realtime = /^(?:SIG)?RT(MIN|MAX)(?:([+-])([0-9]{1,2}))?$/.exec(name);
  if (realtime) {
    const offset = Number(realtime[3] ?? 0) * (realtime[2] === "-" ? -1 : 1);
    const number = (realtime[1] === "MIN" ? SIGRTMIN : SIGRTMAX) + offset;
    if (number >= SIGRTMIN && number <= SIGRTMAX) return number;
  }
  const known = new Map<string, number>(Object.entries(constants.signals));
  const number = known.get(name) ?? known.get(`SIG${name}`);
  if (number === undefined)
    throw new SwarmError("invalid_argument", `stop signal ${JSON.stringify(text)} does not exist`);
  return number;
}
