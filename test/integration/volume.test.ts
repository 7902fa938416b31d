/**
 * Goal: a task goes back to the node that has its volume, or says why it cannot. Method: real programs on two hosts; the
 * data is what tasks themselves wrote.
 */
import { afterAll, beforeAll, expect } from "vitest";
import { eventually } from "../eventually.ts";
import { buildImage, busyboxFiles } from "../images.ts";
import { isRoot, rootTest } from "../privileges.ts";
import { file } from "../tar.ts";
import { TestCluster } from "./cluster.ts";

/** Writes a line in its volume at each start and shows all of them. */
const DIARY = `#!/bin/sh
trap 'exit 0' TERM
echo "$1" >> /data/diary
echo "$1: $(cat /data/diary | tr '\\n' ' ')"
while true; do sleep 3600 & wait $!; done
`;

let cluster: TestCluster;

beforeAll(async () => {
  if (!isRoot) return;
  cluster = await TestCluster.start({ nodes: 2 });
  const image = buildImage({
    name: "demo/diary:1",
    directory: cluster.folder("images"),
    layers: [{ files: busyboxFiles() }, { files: [file("bin/diary", DIARY, 0o755)] }],
    config: { Env: ["PATH=/bin"], Cmd: ["diary", "first"] },
  });
  await cluster.swarmctl("image", "load", image);
});

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

rootTest("data stays with its task, or the task says why it cannot run", async () => {
  const mount = "source=diary,target=/data";
  await cluster.swarmctl("service", "create", "--name", "db", "--mount", mount, "demo/diary:1");
  const format = ["--format", "{{.Name}} {{.Nodes}}"];
  await eventually(async () => {
    expect(await cluster.swarmctl("volume", "ls", ...format)).toMatch(/^diary node-[12]\n$/);
  });
  const node = (await cluster.swarmctl("volume", "ls", "--format", "{{.Nodes}}")).trim();
  // The other node is emptier: without the volume the task would go there.
  await cluster.swarmctl("service", "update", "--args", "diary second", "db");
  const logs = () => cluster.swarmctl("service", "logs", "--raw", "db");
  await eventually(async () => expect(await logs()).toContain("second: first second"));

  await cluster.swarmctl("node", "update", "--availability", "drain", node);
  const ps = () => cluster.swarmctl("service", "ps", "--no-trunc", "-f", "desired-state=running", "db");
  await eventually(async () =>
    expect(await ps()).toContain(`no suitable node (volume diary is on ${node}, which is drained)`),
  );
  await cluster.swarmctl("node", "update", "--availability", "active", node);
  await eventually(async () => expect(await logs()).toContain("second: first second second"));
  const [shown] = JSON.parse(await cluster.swarmctl("volume", "inspect", "diary"));
  expect(shown).toMatchObject({ Name: "diary", Services: ["db"], Nodes: [{ Hostname: node }] });
});
