/**
 * Makes V8's code of the bundles in a folder, at a build and where a release is installed (V8 takes code only from its own
 * version on its own kind of processor). Each bundle runs once as users run it most, and what the run compiled is kept beside it.
 *
 *     warm-up.ts DIRECTORY                       all programs
 *     warm-up.ts DIRECTORY PROGRAM ARGUMENT…     a child of the former: one run
 */
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http2";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { create, toBinary } from "@bufbuild/protobuf";
import { ListServicesResponseSchema } from "../proto/gen/swarm/v1/control_pb.js";
import { compileBundle } from "./bundle-script.ts";
import { PROGRAMS, type Program } from "./programs.ts";

const execute = promisify(execFile);

/** A stack file with most of the shapes that files have. */
const STACK = `services:
  web:
    image: demo/web:\${TAG:-1}
    command: ["serve", "--port", "80"]
    environment: {A: 1, B: "two"}
    labels: [a=b]
    ports: ["8080:80", {target: 81, published: 81}]
    volumes: ["data:/data", "./conf:/conf:ro"]
    healthcheck: {test: curl x, interval: 30s}
    deploy:
      replicas: 2
      update_config: {delay: 5s}
      resources: {limits: {cpus: "0.5", memory: 128M}}
      placement: {constraints: ["node.role == worker"]}
volumes:
  data: {}
`;

async function warmUpAll(self: string, directory: string): Promise<void> {
  const scratch = mkdtempSync(join(tmpdir(), "swarm-warm-up-"));
  try {
    await Promise.all(PROGRAMS.map((program) => warmUp(program, { self, directory, scratch })));
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

interface Places {
  readonly self: string;
  readonly directory: string;
  readonly scratch: string;
}

/** What most people call most, or else as far as needs no host. */
async function warmUp({ name, entry }: Program, { self, directory, scratch }: Places): Promise<void> {
  // V8 takes code only from itself with the same flags: those of the wrapper.
  const wrapper = readFileSync(join(directory, "../..", dirname(entry), name), "utf8");
  const flags = /^flags='(.*)'$/m.exec(wrapper)?.[1]?.split(" ") ?? [];
  // Nobody's own contexts and variables are to be seen.
  const env = { PATH: process.env.PATH ?? "", HOME: scratch };
  const run = (...args: readonly string[]) =>
    execute(process.execPath, [...flags, self, directory, name, ...args], { env });
  if (name !== "swarmctl") {
    await run("--help");
    return;
  }
  const socket = join(scratch, "manager.sock");
  await using _manager = await answerAlways(socket, listing());
  await run("--host", `unix://${socket}`, "service", "ls");
  // The other one that is waited for: reading a stack file is the most code that swarmctl runs.
  const stack = join(scratch, "stack.yml");
  writeFileSync(stack, STACK);
  await run("stack", "config", "-c", stack);
}

function listing(): Uint8Array {
  const service = { id: "x", name: "web", ports: [{ protocol: 1, targetPort: 80, publishedPort: 8080 }] };
  const spec = { name: "web", labels: { a: "b" }, task: { container: { image: "demo/web:1" } } };
  return toBinary(ListServicesResponseSchema, create(ListServicesResponseSchema, { services: [{ service, spec }] }));
}

/** A gRPC server with one answer. */
async function answerAlways(socket: string, message: Uint8Array): Promise<AsyncDisposable> {
  const server = createServer();
  server.on("stream", (stream) => {
    const head = Buffer.alloc(5);
    head.writeUInt32BE(message.length, 1);
    stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
    stream.end(Buffer.concat([head, message]));
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.on("error", reject).listen(socket, resolve);
  await promise;
  return {
    [Symbol.asyncDispose]: async () => {
      server.close();
    },
  };
}

/** Runs one bundle as a user would, and keeps the code beside what an earlier run has left. */
function runOnce(directory: string, program: string, args: readonly string[]): void {
  const path = join(directory, `${program}.code`);
  const bundle = compileBundle(directory, program, existsSync(path) ? readFileSync(path) : undefined);
  process.on("exit", (code) => {
    if (code === 0) writeFileSync(path, bundle.codeCache());
  });
  process.argv = [process.execPath, join(directory, `${program}.cjs`), ...args];
  bundle.run();
}

const [, self = "", directory = "", program, ...args] = process.argv;
if (program === undefined) void warmUpAll(self, directory);
else runOnce(directory, program, args);
