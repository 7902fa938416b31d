// Goal: the program starts with an etcd of its own, serves each service on its own door only, stops at once and leaves
// nothing. Method: the real program on a temporary directory.
import { type ChildProcess, spawn } from "node:child_process";
import { copyFile, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openGrpcTransport } from "../common/rpc/grpc-transport.ts";
import { createClient } from "../common/rpc/service.ts";
import { Control } from "../proto/gen/swarm/v1/control_pb.js";
import { Dispatcher } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import { CertificateAuthority } from "../test/certificates.ts";
import { eventually } from "../test/eventually.ts";
import { beatOnce } from "../test/one-beat.ts";

const PROGRAM = new URL("swarm-manager", import.meta.url).pathname;

let directory = "";
const children: ChildProcess[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "manager-"));
});

afterEach(async () => {
  for (const child of children.splice(0))
    if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
  await rm(directory, { recursive: true, force: true });
});

function run(options: readonly string[]) {
  const lines: Record<string, unknown>[] = [];
  const text: string[] = [];
  const child = spawn(PROGRAM, [...options, "--log-format", "json"], { stdio: ["ignore", "pipe", "pipe"] });
  children.push(child);
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on("line", (line) => {
      text.push(line);
      if (line.startsWith("{")) lines.push(JSON.parse(line) as Record<string, unknown>);
    });
  }
  const exited = new Promise<number | null>((resolve) => child.once("close", (code) => resolve(code)));
  return { child, text, exited, said: (message: string) => lines.find(({ msg }) => msg === message) };
}

async function started(options: readonly string[] = []) {
  const data = join(directory, "data");
  const socket = join(directory, "control.sock");
  const program = run(["--data-dir", data, "--socket", socket, "--listen-addr", "127.0.0.1:0", ...options]);
  const ready = await eventually(
    () => {
      const line = program.said("manager ready");
      if (!line) throw new Error(program.text.join("\n"));
      return line;
    },
    { timeoutMs: 20_000 },
  );
  return { ...program, data, socket, address: String(ready.address) };
}

test("serves each service on its own door, stops within two seconds, and is itself again after a restart", async () => {
  const first = await started();
  await using local = openGrpcTransport({ address: `unix:${first.socket}` });
  await using remote = openGrpcTransport({ address: first.address, tls: { verify: false } });
  await using plain = openGrpcTransport({ address: first.address });
  const { managerId } = await eventually(async () => {
    const info = await createClient(Control, local).getInfo({});
    expect(info.leaderId).toBe(info.managerId);
    expect(info.managers).toMatchObject([{ address: first.address }]);
    return info;
  });
  await expect(createClient(Control, plain).getInfo({})).rejects.toMatchObject({ code: "unavailable" });
  await expect(createClient(Control, remote).getInfo({})).rejects.toMatchObject({ code: "unauthenticated" });
  await expect(beatOnce(createClient(Dispatcher, local), {})).rejects.toMatchObject({ code: "unimplemented" });
  await expect(beatOnce(createClient(Dispatcher, remote), {})).rejects.toMatchObject({ code: "unauthenticated" });
  expect((await stat(first.socket)).mode & 0o777).toBe(0o600);
  expect((await stat(first.data)).mode & 0o777).toBe(0o700);
  const etcd = JSON.parse(await readFile(join(first.data, "etcd/owner.json"), "utf8")) as { etcd: { pid: number } };

  const stoppedAtMs = performance.now();
  first.child.kill("SIGTERM");
  expect(await first.exited).toBe(0);
  expect(performance.now() - stoppedAtMs).toBeLessThan(2_000);
  expect(() => process.kill(etcd.etcd.pid, 0)).toThrow("ESRCH");
  await expect(stat(first.socket)).rejects.toMatchObject({ code: "ENOENT" });

  const second = await started();
  await using again = openGrpcTransport({ address: `unix:${second.socket}` });
  expect((await createClient(Control, again).getInfo({})).managerId).toBe(managerId);
  second.child.kill("SIGTERM");
  expect(await second.exited).toBe(0);
}, 60_000);

test("a second manager on the same directory is refused in one line", async () => {
  const first = await started();
  const options = ["--data-dir", first.data, "--socket", join(directory, "b.sock"), "--listen-addr", "127.0.0.1:0"];
  const second = run(options);
  expect(await second.exited).toBe(1);
  expect(second.text.at(-1)).toContain(`in use by the process with pid ${first.child.pid}`);
  first.child.kill("SIGTERM");
  expect(await first.exited).toBe(0);
}, 60_000);

test("a taken port is named, and the etcd that was started for nothing is stopped", async () => {
  const first = await started();
  const options = ["--data-dir", join(directory, "b"), "--socket", join(directory, "b.sock")];
  const second = run([...options, "--listen-addr", first.address]);
  expect(await second.exited).toBe(1);
  expect(second.text.at(-1)).toBe(`swarm-manager: listen on ${first.address}: address already in use`);
  // It goes with a clean stop of the etcd.
  await expect(stat(join(directory, "b/etcd/owner.json"))).rejects.toMatchObject({ code: "ENOENT" });
  first.child.kill("SIGTERM");
  expect(await first.exited).toBe(0);
}, 60_000);

test("--api-addr serves Control over TLS, renews its certificate on SIGHUP, and is refused without its files", async () => {
  const authority = new CertificateAuthority(directory, "ca");
  const server = authority.issue({ name: "manager", subjectAltName: "IP:127.0.0.1" });
  const tls = authority.pem(authority.issue({ name: "alice" }));
  const files = ["--tlscacert", authority.file, "--tlscert", server.certificate, "--tlskey", server.key];
  const api = ["--api-addr", "127.0.0.1:0"];
  const refused = run([...api, "--tlscert", server.certificate, "--data-dir", join(directory, "none")]);
  expect(await refused.exited).toBe(2);
  expect(refused.text.at(-1)).toBe(
    "swarm-manager: --tlscacert: must be given: --api-addr is served to clients with a certificate only; " +
      "--tlskey: must be given: --api-addr is served to clients with a certificate only",
  );

  const manager = await started([...api, ...files]);
  const address = String(manager.said("listening")?.api);
  await using remote = openGrpcTransport({ address, tls });
  // It may answer before it has told the store that it is there.
  await eventually(async () => expect((await createClient(Control, remote).getInfo({})).managers).toHaveLength(1));
  await using plain = openGrpcTransport({ address });
  await expect(createClient(Control, plain).getInfo({})).rejects.toMatchObject({ code: "unavailable" });

  // A torn file does not take the door down; a good one counts for the next connection.
  const other = new CertificateAuthority(directory, "other-ca");
  const renewed = other.issue({ name: "renewed", subjectAltName: "IP:127.0.0.1" });
  await writeFile(server.certificate, "torn");
  manager.child.kill("SIGHUP");
  await eventually(() => expect(manager.said("certificate not renewed")).toBeDefined());
  await copyFile(renewed.certificate, server.certificate);
  await copyFile(renewed.key, server.key);
  manager.child.kill("SIGHUP");
  await eventually(() => expect(manager.said("certificate renewed")).toBeDefined());
  await using again = openGrpcTransport({ address, tls: { ...tls, ca: await readFile(other.file, "utf8") } });
  expect((await createClient(Control, again).getInfo({})).managers).toHaveLength(1);
  manager.child.kill("SIGTERM");
  expect(await manager.exited).toBe(0);
}, 60_000);
