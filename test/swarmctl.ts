/** Runs one command of swarmctl in the test's process, as `cli/process.ts` would in its own. */
import { existsSync, readFileSync } from "node:fs";
import { Readable } from "node:stream";
import { connect } from "../cli/connect.ts";
import { run } from "../cli/run.ts";
import { systemClock } from "../common/base/clock.ts";

/** How it ended. */
export interface SwarmctlResult {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** What surrounds the command. */
export interface SwarmctlOptions {
  readonly environment?: Readonly<Record<string, string>>;
  /** Plays SIGINT. */
  readonly signal?: AbortSignal;
  readonly terminal?: boolean;
  /** A stream may stay open, as a terminal or a slow program would. */
  readonly stdin?: string | Uint8Array | Readable;
  /** How bytes of stdout become text. Default UTF-8. */
  readonly encoding?: "latin1";
  /** Told all of stdout so far each time something was written: for commands that end when they are told to. */
  readonly onOut?: (out: string) => void;
}

function stdinOf(stdin: SwarmctlOptions["stdin"]): Readable {
  if (stdin instanceof Readable) return stdin;
  return Readable.from(stdin === undefined ? [] : [Buffer.from(stdin)]);
}

export async function runSwarmctl(argv: readonly string[], options: SwarmctlOptions = {}): Promise<SwarmctlResult> {
  let [out, err] = ["", ""];
  const io = {
    out: (text: string) => {
      out += text;
      options.onOut?.(out);
    },
    err: (text: string) => {
      err += text;
    },
    terminal: options.terminal ?? false,
    columns: 80,
    environment: options.environment ?? {},
    readBytes: (path: string) => readFileSync(path),
    readFile: (path: string) => readFileSync(path, "utf8"),
    exists: existsSync,
    console: {
      write: async (to: "out" | "err", bytes: Uint8Array) => {
        const text = Buffer.from(bytes).toString(options.encoding);
        if (to === "out") out += text;
        else err += text;
      },
      size: () => ({ rows: 25, columns: 80 }),
      onResize: () => () => {},
      setRaw: () => {},
    },
    stdin: stdinOf(options.stdin),
  };
  const code = await run(argv, {
    io,
    clock: systemClock,
    signal: options.signal ?? new AbortController().signal,
    connect: (hosts, signal, remote) => connect(hosts, { clock: systemClock, signal, ...remote }),
  });
  return { code, out, err };
}
