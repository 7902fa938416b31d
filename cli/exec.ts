/**
 * Commands in tasks, for `service exec` and `task exec`: finds the task, sends what is typed, shows what comes, and ends with
 * the command's exit code.
 *
 *     stdin ──▶ detach keys ──┐
 *     window's size ──────────┴▶ requests ──▶ manager ──▶ agent ──▶ command
 *     stdout, stderr ◀──────────── responses ◀─────────────────────────┘
 */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { abortable } from "../common/base/clock.ts";
import { SwarmError } from "../common/base/error.ts";
import { escapeControls } from "../common/model/text.ts";
import { Pipe } from "../common/rpc/pipe.ts";
import type { ExecRequestSchema, ExecStartSchema } from "../proto/gen/swarm/v1/control_pb.js";
import type { Command, ControlClient, Invocation } from "./command.ts";
import { DETACH_KEYS_DEFAULT, DetachScanner, parseDetachKeys } from "./detach-keys.ts";
import { findTask, placeOfTask, TASK_FLAG } from "./find-task.ts";
import { parseEnvFile } from "./flags/env-file.ts";
import { parseVariable } from "./flags/lists.ts";
import type { FlagTable } from "./flags/parse.ts";
import { parsedOrThrow } from "./flags/values.ts";
import type { Io } from "./io.ts";
import { UsageError } from "./usage-error.ts";

const EXEC_FLAGS = {
  detach: { kind: "boolean", short: "d", help: "Run the command in the background" },
  "detach-keys": {
    kind: "text",
    value: "string",
    help: "The keys that leave the command running on",
    default: DETACH_KEYS_DEFAULT,
  },
  env: { kind: "list", short: "e", value: "list", help: "Set environment variables" },
  "env-file": { kind: "list", value: "list", help: "Read in a file of environment variables" },
  interactive: { kind: "boolean", short: "i", help: "Send STDIN to the command" },
  privileged: { kind: "boolean", help: "Refused: a command has the rights of its task and no more" },
  task: TASK_FLAG,
  tty: { kind: "boolean", short: "t", help: "Give the command a terminal" },
  user: { kind: "text", short: "u", value: "string", help: "Username or UID (format: <name|uid>[:<group|gid>])" },
  workdir: { kind: "text", short: "w", value: "string", help: "Working directory inside the container" },
} as const satisfies FlagTable;

/** Bytes of input in one request. */
const INPUT_BYTES_MAX = 64 * 1024;
/** Requests that wait for the manager. */
const REQUESTS_MAX = 4;

type Request = MessageInitShape<typeof ExecRequestSchema>["content"];

/** A command that runs another one in a task. */
export function execCommand(usage: string): Command {
  return {
    usage,
    summary: "Execute a command in a running task",
    flags: EXEC_FLAGS,
    words: { min: 2, max: Number.POSITIVE_INFINITY },
    // What follows belongs to the command.
    interspersed: false,
    run,
  };
}

async function run(invocation: Invocation): Promise<number> {
  const { flags, words, io, connect } = invocation;
  const [reference = "", ...args] = words;
  const [tty, stdin, detach] = [flags.on("tty"), flags.on("interactive"), flags.on("detach")];
  if (flags.on("privileged")) {
    throw new SwarmError("unimplemented", "--privileged: a command has the rights of its task and no more");
  }
  if (detach && (tty || stdin)) throw new UsageError("--detach: a command in the background has no -i and no -t");
  if (tty && stdin && io.stdin.isTTY !== true) throw new UsageError("-t: the input device is not a TTY");
  const keys = parsedOrThrow("detach-keys", flags.text("detach-keys") ?? DETACH_KEYS_DEFAULT, parseDetachKeys);
  const env = variables(invocation);
  const client = await connect();
  const task = await findTask(client, reference, flags.text("task"));
  if (io.terminal) io.err(`swarmctl: in ${placeOfTask(task)}\n`);
  const start = {
    ...{ taskId: task.task?.id ?? "", args, env, tty, stdin, detach },
    user: flags.text("user") ?? "",
    dir: flags.text("workdir") ?? "",
    ...(tty && { size: io.console.size() }),
  };
  return await attend(client, start, keys, invocation);
}

function variables({ flags, io }: Invocation): string[] {
  const fromFiles = flags.list("env-file").flatMap((path) => {
    const parsed = parseEnvFile(io.readFile(path), io.environment);
    if (!parsed.ok) throw new UsageError(`--env-file ${path}: ${parsed.problem}`);
    return parsed.value;
  });
  const parse = (text: string) => parseVariable(text, io.environment);
  return [...fromFiles, ...flags.list("env").map((text) => parsedOrThrow("env", text, parse))];
}

async function attend(
  client: ControlClient,
  start: MessageInitShape<typeof ExecStartSchema>,
  keys: readonly number[],
  { io, signal }: Invocation,
): Promise<number> {
  const requests = new Pipe<Request>(REQUESTS_MAX);
  const over = new AbortController();
  const until = AbortSignal.any([signal, over.signal]);
  const typing = start.stdin ? new Typing(start.tty ? new DetachScanner(keys) : undefined) : undefined;
  const raw = start.tty === true && start.stdin === true;
  const send = (content: Request) => requests.write(content, until);
  const stopResizing = start.tty ? io.console.onResize(() => void send(resized(io)).catch(() => {})) : () => {};
  try {
    if (raw) io.console.setRaw(true);
    // What goes wrong with the input is told where it matters: by the responses.
    const sending = typing?.run(io.stdin, send).catch(() => {});
    const code = await show(client, messages(start, requests, until), io, until);
    if (code === undefined && !start.detach && !typing?.detached)
      throw new SwarmError("unavailable", "the command's stream ended early");
    void sending;
    return code ?? 0;
  } catch (reason) {
    if (signal.aborted) return 130;
    throw reason;
  } finally {
    if (raw) io.console.setRaw(false);
    stopResizing();
    over.abort(new SwarmError("canceled", "the command has ended"));
  }
}

async function* messages(
  start: MessageInitShape<typeof ExecStartSchema>,
  requests: Pipe<Request>,
  signal: AbortSignal,
): AsyncGenerator<MessageInitShape<typeof ExecRequestSchema>> {
  yield { content: { case: "start", value: start } };
  for await (const content of requests.read(signal)) if (content) yield { content };
}

function resized(io: Io): Request {
  return { case: "resize", value: io.console.size() };
}

/** Writes what comes, at the pace of who reads it; the exit code, or undefined when the command was left to itself. */
async function show(
  client: ControlClient,
  requests: AsyncIterable<MessageInitShape<typeof ExecRequestSchema>>,
  io: Io,
  signal: AbortSignal,
): Promise<number | undefined> {
  let code: number | undefined;
  for await (const { content } of client.exec(requests, { signal })) {
    if (content.case === "stdout") await abortable(io.console.write("out", content.value), signal);
    else if (content.case === "stderr") await abortable(io.console.write("err", content.value), signal);
    else if (content.case === "ended") {
      code = content.value.exitCode;
      if (content.value.error !== "") io.err(`swarmctl: ${escapeControls(content.value.error)}\n`);
    }
  }
  return code;
}

/** Standard input on its way to the command. */
class Typing {
  readonly #scanner: DetachScanner | undefined;
  detached = false;

  constructor(scanner: DetachScanner | undefined) {
    this.#scanner = scanner;
  }

  async run(stdin: AsyncIterable<Uint8Array>, send: (content: Request) => Promise<void>): Promise<void> {
    for await (const chunk of stdin) {
      const { pass, detach } = this.#scanner?.push(chunk) ?? { pass: chunk, detach: false };
      for (let at = 0; at < pass.length; at += INPUT_BYTES_MAX) {
        await send({ case: "stdin", value: pass.subarray(at, at + INPUT_BYTES_MAX) });
      }
      if (!detach) continue;
      this.detached = true;
      return await send({ case: "detach", value: true });
    }
    await send({ case: "stdinEnd", value: true });
  }
}
