/** The process as commands see it: streams, terminal, environment, files. Handed in, so that tests run commands whole. */
import { existsSync, readFileSync } from "node:fs";
import type { Readable } from "node:stream";
import { systemMessage } from "../common/base/error.ts";
import { type Console, processConsole } from "./terminal.ts";
import { UsageError } from "./usage-error.ts";

/** Where a command reads and writes. */
export interface Io {
  /** Results. */
  out(text: string): void;
  /** Progress and complaints. */
  err(text: string): void;
  /** Whether stdout is a terminal; progress is redrawn in place and logs are coloured only there. */
  readonly terminal: boolean;
  /** The terminal's width. */
  readonly columns: number;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readFile(path: string): string;
  /** A file's bytes. Refused when there are `bytesMax` or more of them. */
  readBytes(path: string, bytesMax: number): Uint8Array;
  exists(path: string): boolean;
  readonly stdin: Readable & { readonly isTTY?: boolean };
  /** Bytes and the terminal itself, for commands that somebody talks with. */
  readonly console: Console;
}

/** A variables' or credentials' file larger than this is the wrong file. */
const FILE_BYTES_MAX = 1024 * 1024;

/** The real process. */
export function processIo(): Io {
  return {
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    // A "dumb" terminal (editors, some CI) knows no escape sequences.
    terminal: process.stdout.isTTY === true && process.env.TERM !== "dumb",
    columns: process.stdout.columns ?? 80,
    environment: process.env,
    readFile: (path) => readBytes(path, FILE_BYTES_MAX + 1).toString("utf8"),
    readBytes,
    exists: (path) => existsSync(path),
    stdin: process.stdin,
    console: processConsole(),
  };
}

function readBytes(path: string, bytesMax: number): Buffer {
  try {
    const content = readFileSync(path);
    if (content.length >= bytesMax) throw new UsageError(`${path}: larger than ${bytesMax - 1} bytes`);
    return content;
  } catch (reason) {
    if (reason instanceof UsageError) throw reason;
    throw new UsageError(`${path}: ${systemMessage(reason)}`);
  }
}
