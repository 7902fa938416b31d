import { createRequire } from "node:module";
import { type DestinationStream, pino } from "pino";
import type { PinoPretty } from "pino-pretty";

/** The levels of pino, and `silent`. */
export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Logs one line: data first, then a constant lower-case message. */
interface LogMethod {
  (fields: Readonly<Record<string, unknown>>, message: string): void;
  (message: string): void;
}

/**
 * A structured logger. It is handed in; one child per loop, session and task. Messages are constant and lower case,
 * data goes into the fields `nodeId taskId serviceId sessionId revision`, errors into `err`.
 */
export interface Logger {
  readonly debug: LogMethod;
  readonly info: LogMethod;
  readonly warn: LogMethod;
  readonly error: LogMethod;
  child(fields: Record<string, unknown>): Logger;
}

/** Where and how much a program logs. */
export interface LoggerOptions {
  readonly level: LogLevel;
  /** JSON lines, or coloured lines for people; default: pretty when stderr is a terminal. */
  readonly format?: "json" | "pretty";
}

/** Opens the process's logger on stderr (stdout belongs to results). */
export function openLogger(program: string, options: LoggerOptions): Logger {
  const pretty = options.format === undefined ? process.stderr.isTTY === true : options.format === "pretty";
  const stream: DestinationStream = pretty
    ? loadPretty()({ destination: 2, sync: true, ignore: "pid,hostname", colorize: true })
    : pino.destination({ fd: 2, sync: true });
  return pino({ name: program, level: options.level, timestamp: pino.stdTimeFunctions.isoTime }, stream);
}

/** pino-pretty is loaded only where a person watches: it costs memory. */
function loadPretty(): typeof PinoPretty {
  return createRequire(import.meta.url)("pino-pretty");
}

/** A logger that says nothing: for tests and simulations. */
export const silentLogger: Logger = pino({ level: "silent" });
