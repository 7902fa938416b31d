import { constants } from "node:os";
import { quoted } from "./units.ts";

/** What is wrong with the name of a signal, or undefined. */
export function signalProblem(text: string): string | undefined {
  return isSignal(text) ? undefined : `Invalid signal: ${quoted(text)}`;
}

/** Whether Linux has this signal: "SIGTERM", "term", "15", "RTMIN+3". */
function isSignal(text: string): boolean {
  if (/^\d+$/.test(text)) return Number(text) >= 1 && Number(text) <= 64;
  const name = text.toUpperCase().replace(/^(?!SIG)/, "SIG");
  if (Object.hasOwn(constants.signals, name)) return true;
  const realTime = /^SIGRT(MIN|MAX)(?:([+-])(\d{1,2}))?$/.exec(name);
  if (realTime === null) return false;
  const [, end, sign = end === "MIN" ? "+" : "-", offset = "0"] = realTime;
  return sign === (end === "MIN" ? "+" : "-") && Number(offset) <= 30;
}
