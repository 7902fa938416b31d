/**
 * Users with stack prefixes. Goal: a CI user deploys, sees and enters its own stack, and the rest of the cluster is not there for it.
 * Method: the real dispatcher; the API behind the managers' own door, under certificates of the cluster's own CA.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openGrpcTransport } from "../../common/rpc/grpc-transport.ts";
import { type Client, createClient, type Transport } from "../../common/rpc/service.ts";
import { guardControl } from "../../manager/guard/guard.ts";
import { Control } from "../../proto/gen/swarm/v1/control_pb.js";
import { type ControlPlane, startControlPlane } from "../control-plane.ts";
import { eventually } from "../eventually.ts";
import { runSwarmctl } from "../swarmctl.ts";

const folder = mkdtempSync(join(tmpdir(), "swarmctl-confined-"));
let plane: ControlPlane;
let address = "";

const host = (...argv: readonly string[]) => runSwarmctl(argv, { environment: { SWARM_HOST: plane.host } });
const as = (context: string, ...argv: readonly string[]) =>
  runSwarmctl(["--context", context, ...argv], { environment: { SWARM_CONFIG: join(folder, "config") } });

async function must(
  answer: Promise<{ readonly code: number; readonly out: string; readonly err: string }>,
): Promise<string> {
  const { code, out, err } = await answer;
  expect([code, code === 0 ? "" : err]).toEqual([0, ""]);
  return out;
}

/** Makes a user and its context of the same name; answers a way to the managers under its certificate. */
async function enter(name: string, ...flags: readonly string[]): Promise<Transport> {
  const file = join(folder, `${name}.invite`);
  await must(host("user", "create", name, "--out", file, ...flags));
  await must(as("default", "context", "create", name, "--from-invite", file));
  const { roots, certificates, key } = JSON.parse(readFileSync(file, "utf8"));
  return openGrpcTransport({
    address,
    tls: { ca: roots, certificate: certificates, key, serverName: "swarm-manager" },
  });
}

function stackFile(name: string, more = ""): string {
  const file = join(folder, `${name}.yml`);
  const base =
    "services:\n  web:\n    image: demo/web:1\n    secrets: [key]\n    configs: [conf]\n    volumes: [data:/data]\n    deploy: {update_config: {monitor: 100ms}, rollback_config: {monitor: 100ms}}\n";
  const parts = "secrets: {key: {file: ./key}}\nconfigs: {conf: {file: ./key}}\nvolumes: {data: {}}\n";
  writeFileSync(join(folder, "key"), "k");
  writeFileSync(file, `${base}${more}${parts}`);
  return file;
}

let ci: Transport;
beforeAll(async () => {
  plane = await startControlPlane({ nodes: 1 });
  address = await plane.serveMembers();
  await must(host("stack", "deploy", "-c", stackFile("bank"), "bank"));
  await must(host("service", "create", "--name", "lonely", "demo/web:1"));
  ci = await enter("ci", "--role", "deployer", "--stack", "shop");
}, 60_000);
afterAll(async () => {
  await ci?.[Symbol.asyncDispose]();
  await plane[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

const CONFINED = "swarmctl: user ci is confined to stacks that begin with shop: ";

test("its own stack: planned, deployed, seen, entered, rolled back", async () => {
  const file = stackFile("shop");
  expect((await as("ci", "stack", "plan", "-c", file, "shop")).code).toBe(4);
  await must(as("ci", "stack", "deploy", "-c", file, "shop"));
  expect(await must(as("ci", "service", "logs", "--raw", "shop_web"))).toMatch(/^hello\n/);
  expect(await must(as("ci", "task", "exec", "shop_web.1", "echo", "hi"))).toContain("hi");
  await must(as("ci", "service", "scale", "shop_web=2"));
  await must(as("ci", "stack", "deploy", "-c", stackFile("shop", "    environment: {A: b}\n"), "shop"));
  await must(as("ci", "stack", "rollback", "shop"));
  await must(as("ci", "secret", "create", "shop_more", file));
  await must(as("ci", "secret", "rm", "shop_more"));
  await must(as("ci", "volume", "create", "shop_more"));
  await must(as("ci", "volume", "rm", "shop_more"));
});

test("lists show its own, and nothing of what else there is", async () => {
  const names = async (...argv: readonly string[]) =>
    (await must(as("ci", ...argv, "--format", "{{.Name}}"))).trim().split("\n").sort();
  expect(await names("service", "ls")).toEqual(["shop_web"]);
  expect(await names("stack", "ls")).toEqual(["shop"]);
  expect(await names("secret", "ls")).toEqual(["shop_key"]);
  expect(await names("config", "ls")).toEqual(["shop_conf"]);
  expect(await names("volume", "ls")).toEqual(["shop_data"]);
  expect(await names("service", "ps", "shop_web")).toContain("shop_web.1");
  const client = createClient(Control, ci);
  const { tasks } = await client.listTasks({});
  expect(new Set(tasks.map(({ serviceName }) => serviceName))).toEqual(new Set(["shop_web"]));
  for await (const { tasks: stats, unreachable } of client.watchTaskStats({})) {
    expect([...new Set(stats.map(({ name }) => name.replace(/\.\d+$/, "")))]).toEqual(["shop_web"]);
    expect(unreachable).toEqual([]);
    break;
  }
  for await (const message of client.watchServices({})) {
    expect(message.services.map(({ service }) => service?.name)).toEqual(["shop_web"]);
    expect(message.tasks.every(({ serviceName }) => serviceName === "shop_web")).toBe(true);
    break;
  }
});

test.each<[string[], string]>([
  [["service", "inspect", "bank_web"], 'service "bank_web" is not of these'],
  [["service", "inspect", "nothing"], 'service "nothing" is not of these'],
  [["service", "rm", "lonely"], 'service "lonely" is not of these'],
  [["service", "logs", "bank_web"], 'service "bank_web" is not of these'],
  [["task", "exec", "bank_web.1", "sh"], 'service "bank_web.1" is not of these'],
  [["task", "cp", "bank_web.1:/etc", "/tmp/never"], 'service "bank_web.1" is not of these'],
  [["service", "create", "-d", "--name", "other", "demo/web:1"], 'service "other" is not of these'],
  [
    ["service", "create", "-d", "--name", "shop_x", "--secret", "bank_key", "demo/web:1"],
    'secret "bank_key" is not of these',
  ],
  [
    ["service", "create", "-d", "--name", "shop_x", "--privileged", "demo/web:1"],
    'service "shop_x": privileged would lead out of its tasks',
  ],
  [
    ["service", "create", "-d", "--name", "shop_x", "--mount", "type=bind,src=/etc,dst=/e", "demo/web:1"],
    'service "shop_x": a bind mount of /etc would lead out of its tasks',
  ],
  [["secret", "inspect", "bank_key"], 'secret "bank_key" is not of these'],
  [["config", "rm", "bank_conf"], 'config "bank_conf" is not of these'],
  [["volume", "rm", "bank_data"], 'volume "bank_data" is not of these'],
  [
    ["stack", "rm", "bank"],
    'stack "bank" is not of these; service "bank_web" is not of these; secret "bank_key" is not of these; config "bank_conf" is not of these; network "bank_default" is not of these',
  ],
  [["node", "ls"], "nodes are of the whole cluster"],
  [["image", "ls"], "images are of the whole cluster"],
])("refused: %j", async (argv, message) => {
  expect(await as("ci", ...argv)).toEqual({ code: 1, out: "", err: `${CONFINED}${message}\n` });
});

test("a stack that is not its own is neither planned nor deployed", async () => {
  const file = stackFile("bank");
  for (const verb of ["plan", "deploy"]) {
    const { code, err } = await as("ci", "stack", verb, "-c", file, "bank");
    expect([code, err]).toEqual([1, expect.stringContaining('stack "bank" is not of these')]);
  }
  expect(await must(host("stack", "history", "bank", "--format", "{{.Revision}}"))).toBe("1\n");
});

test("a viewer of stacks reads these only, and changes nothing", async () => {
  await using _ = await enter("watcher", "--role", "viewer", "--stack", "bank");
  expect(await must(as("watcher", "service", "ls", "--format", "{{.Name}}"))).toBe("bank_web\n");
  expect((await as("watcher", "service", "logs", "shop_web")).err).toContain('service "shop_web" is not of these');
  expect((await as("watcher", "service", "rm", "bank_web")).err).toContain("not for users with role viewer");
});

test("whoever is removed in the middle of a stream hears of nothing more", async () => {
  await using transport = await enter("leaver", "--role", "deployer");
  const client: Client<typeof Control> = createClient(Control, transport);
  const watch = client.watchServices({})[Symbol.asyncIterator]();
  expect((await watch.next()).done).toBe(false);
  const { tasks } = await client.listTasks({ serviceIds: ["lonely"] });
  const open = Promise.withResolvers<never>();
  const exec = client
    .exec(
      (async function* () {
        yield {
          content: { case: "start", value: { taskId: tasks[0]?.task?.id ?? "", args: ["cat"], stdin: true } },
        } as const;
        await open.promise;
      })(),
    )
    [Symbol.asyncIterator]();
  expect((await exec.next()).value).toMatchObject({ content: { case: "started" } });
  const ended = [watch.next(), exec.next()].map((next) =>
    expect(next).rejects.toMatchObject({
      code: "permission_denied",
      message: "user leaver was removed from the cluster",
    }),
  );
  await must(host("user", "rm", "leaver"));
  await Promise.all(ended);
});

test("a stream goes on while other users come and go", async () => {
  const client = createClient(Control, ci);
  const watch = client.watchServices({})[Symbol.asyncIterator]();
  await watch.next();
  await using _ = await enter("passer", "--role", "viewer");
  await must(host("user", "rm", "passer"));
  await must(host("service", "update", "-d", "--label-add", "a=b", "lonely"));
  await must(host("service", "scale", "-d", "shop_web=3"));
  await eventually(async () => {
    const { value } = await watch.next();
    expect(value?.services.map(({ service }: { service?: { name: string } }) => service?.name)).toEqual(["shop_web"]);
  });
  await watch.return?.();
});

test("a door that does not say who comes is shut", async () => {
  const methods = Control.methods.map(({ localName }) => [localName, async () => ({})]);
  const guarded = guardControl(Object.fromEntries(methods) as never, { view: plane.store.view, audit: plane.audit });
  await expect(
    guarded.getInfo({} as never, { signal: plane.signal, peer: { address: "unix:" } }),
  ).rejects.toMatchObject({ code: "unauthenticated" });
});
