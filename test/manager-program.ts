/** A real swarm-manager with an etcd of its own, in a folder and on a free port, for tests of what it does at its doors. */
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { openGrpcTransport } from "../common/rpc/grpc-transport.ts";
import { type Client, createClient } from "../common/rpc/service.ts";
import { Control } from "../proto/gen/swarm/v1/control_pb.js";
import { eventually } from "./eventually.ts";

const PROGRAM = new URL("../manager/swarm-manager", import.meta.url).pathname;

export interface ManagerProgram {
  readonly child: ChildProcess;
  /** The port for agents and managers: "host:port". */
  readonly address: string;
  readonly socket: string;
  /** Its log so far, by lines. */
  readonly text: readonly string[];
  /** Calls the API as the host's root does. */
  call<T>(work: (control: Client<typeof Control>) => Promise<T>): Promise<T>;
  stop(): Promise<void>;
}

/** Starts one in `folder`/`name`; what lies there is taken up. `listen`: "host:port". Resolves when it serves. */
export async function startManagerProgram(
  folder: string,
  name: string,
  environment: Readonly<Record<string, string>> = {},
  listen = "127.0.0.1:0",
): Promise<ManagerProgram> {
  const socket = join(folder, `${name}.sock`);
  const options = ["--data-dir", join(folder, name), "--socket", socket, "--listen-addr", listen];
  const child = spawn(PROGRAM, [...options, "--log-format", "json"], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...environment },
  });
  const text: string[] = [];
  for (const stream of [child.stdout, child.stderr])
    createInterface({ input: stream }).on("line", (line) => text.push(line));
  const line = await eventually(
    () => {
      const found = text.find((each) => each.includes('"msg":"manager ready"'));
      if (!found) throw new Error(text.join("\n"));
      return found;
    },
    { timeoutMs: 20_000 },
  );
  return {
    ...{ child, socket, text },
    address: String((JSON.parse(line) as { readonly address: string }).address),
    async call(work) {
      await using transport = openGrpcTransport({ address: `unix:${socket}` });
      return await work(createClient(Control, transport));
    },
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = new Promise((resolve) => child.once("close", resolve));
      child.kill("SIGTERM");
      await ended;
    },
  };
}
