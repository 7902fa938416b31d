/**
 * Goal: what lists and shows objects answers as Docker's CLI does, wrong words included. Method: commands whole, over a control
 * plane with two nodes.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type ControlPlane, startControlPlane } from "../control-plane.ts";
import { runSwarmctl } from "../swarmctl.ts";

let plane: ControlPlane;
const swarmctl = (line: string) => runSwarmctl(line.split(" "), { environment: { SWARM_HOST: plane.host } });

beforeAll(async () => {
  plane = await startControlPlane({ nodes: 2 });
  for (const name of ["b", "a"]) {
    expect(await swarmctl(`service create -d --name ${name} demo/web:1`)).toMatchObject({ code: 0 });
    expect(await swarmctl(`network create --label of=${name} net-${name}`)).toMatchObject({ code: 0 });
  }
});
const folder = mkdtempSync(join(tmpdir(), "lists-test-"));
afterAll(async () => {
  await plane[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

test.each([
  ["service inspect -f {{.Spec.Name}} b nope a", "b\na\n", "no such service: nope"],
  ["network inspect -f {{.Name}} net-b nope net-a", "net-b\nnet-a\n", "no such network: nope"],
  ["node inspect -f {{.Description.Hostname}} node-2 nope node-1", "node-2\nnode-1\n", "no such node: nope"],
  ["secret inspect nope", "[]\n", "no such secret: nope"],
  ["volume inspect -f {{.Name}} nope", "", "no such volume: nope"],
  ["service ps --format {{.Name}} b nope a", "a.1\nb.1\n", "no such service: nope"],
  ["service ps nope", "", "no such service: nope"],
  ["network rm -f nope", "", ""],
  ["stack ps nope", "", "nothing found in stack: nope"],
])("%s: what is there in the order of the words, then what is not", async (line, out, missing) => {
  expect(await swarmctl(line)).toEqual({
    code: missing === "" ? 0 : 1,
    out,
    err: missing === "" ? "" : `swarmctl: ${missing}\n`,
  });
});

test.each([
  ["service ps -f desired-state=foo a", "invalid filter 'desired-state=foo': one of new, "],
  ["service ls -f mode=foo", "invalid filter 'mode=foo': one of replicated, global, replicated-job, global-job"],
  ["node ls -f role=foo", "invalid filter 'role=foo': one of manager, worker"],
  ["node ls -f membership=foo", "invalid filter 'membership=foo': one of accepted, pending"],
  ["network ls -f type=foo", "invalid filter 'type=foo': one of builtin, custom"],
  ["network ls -f dangling=maybe", "invalid filter 'dangling=maybe': one of true, 1, false, 0"],
  ["volume ls -f dangling=maybe", "invalid filter 'dangling=maybe': one of true, 1, false, 0"],
])("%s: a value that nothing can have is refused", async (line, message) => {
  const { code, out, err } = await swarmctl(line);
  expect([code, out]).toEqual([2, ""]);
  expect(err).toContain(`swarmctl: ${message}`);
});

test("a stack that is not there may be removed", async () => {
  expect(await swarmctl("stack rm nope")).toEqual({ code: 0, out: "", err: "Nothing found in stack: nope\n" });
});

test("label! keeps what has no such label", async () => {
  await swarmctl("network create plain");
  expect((await swarmctl("network prune -f --filter label!=of=a --filter label!=of=b")).out).toBe(
    "Deleted Networks:\nplain\n\n",
  );
  expect((await swarmctl("network prune -f --filter label!=of")).out).toBe("");
  expect((await swarmctl("network prune --help")).out).toMatch(/^ {6}--filter filter .*\n {2}-f, --force /m);
});

test("{{.Label KEY}}, as Docker's lists have it", async () => {
  await runSwarmctl(["secret", "create", "--label", "of=a,b", "s"], {
    environment: { SWARM_HOST: plane.host },
    stdin: "x",
  });
  const list = async (...words: string[]) =>
    (await runSwarmctl(words, { environment: { SWARM_HOST: plane.host } })).out.split("\n").slice(0, -1);
  expect(
    await list("network", "ls", "-f", "name=net-", "--format", '{{.Name}}={{.Label "of"}}{{.Label "toString"}}'),
  ).toEqual(["net-a=a", "net-b=b"]);
  expect(await list("secret", "ls", "--format", 'table {{.Name}}\t{{.Label "of"}}')).toEqual([
    "NAME      of",
    "s         a,b",
  ]);
  expect((await list("network", "ls", "-f", "name=net-a", "--format", "json")).join()).not.toContain('"Label"');
});

test("network ls has Docker's fields", async () => {
  expect((await swarmctl("network ls -f name=net-a --format {{.IPv4}},{{.IPv6}},{{.Internal}}")).out).toBe(
    "true,false,false\n",
  );
  expect((await swarmctl("network ls -f name=host --format {{.IPv4}}")).out).toBe("false\n");
});

test.each([
  [[], "name: the stack needs a name: give one as the argument STACK, or here"],
  [["a b"], 'name: invalid stack name: "a b"'],
])("a stack's bad name (%j) is one problem", async (name, message) => {
  const file = join(folder, "stack.yml");
  writeFileSync(file, "services: {web: {image: x}}\n");
  const words = ["stack", "deploy", "-c", file, ...name];
  expect(await runSwarmctl(words, { environment: { SWARM_HOST: plane.host } })).toEqual({
    code: 1,
    out: "",
    err: `${file}:1:1: ${message}\n`,
  });
});
