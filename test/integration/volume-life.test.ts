/**
 * Goal: a volume's whole life on real nodes: made with options, filled from the image, shared, removed with its data, also
 * on a node that was away. Method: real programs on two hosts; tasks and the nodes' own disks tell.
 */
import { existsSync, readdirSync } from "node:fs";
import { afterAll, beforeAll, expect } from "vitest";
import { eventually } from "../eventually.ts";
import { buildImage, busyboxFiles } from "../images.ts";
import { isRoot, rootTest } from "../privileges.ts";
import { directory, file } from "../tar.ts";
import { TestCluster } from "./cluster.ts";

const HOLD = "trap 'exit 0' TERM; while true; do sleep 3600 & wait $!; done";

let cluster: TestCluster;
const swarmctl = (...words: string[]) => cluster.swarmctl(...words);

beforeAll(async () => {
  if (!isRoot) return;
  cluster = await TestCluster.start({ nodes: 2 });
  const seeds = [{ ...directory("data", 0o700), uid: 33, gid: 33 }, file("data/seed", "from the image\n")];
  const image = buildImage({
    name: "demo/seed:1",
    directory: cluster.folder("images"),
    layers: [{ files: busyboxFiles() }, { files: seeds }],
    config: { Env: ["PATH=/bin"] },
  });
  await swarmctl("image", "load", image);
});

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

/** A node's data directory. */
const dataOf = (node: string) => `${cluster.directory}/${node}`;

/** What a volume's copies are on the nodes' disks. */
function copies(name: string): string[] {
  return [1, 2].map((node) => dataOf(`node-${node}`)).filter((path) => existsSync(`${path}/volumes/${name}`));
}

rootTest("filled from the image, refused while it is used, removed everywhere", async () => {
  expect(await swarmctl("volume", "create", "--label", "tier=gold", "data")).toBe("data\n");
  await swarmctl(
    "service",
    "create",
    "--name",
    "all",
    "--mode",
    "global",
    "--mount",
    "source=data,target=/data",
    "demo/seed:1",
    "sh",
    "-c",
    `stat -c %u:%a /data; cat /data/seed; ${HOLD}`,
  );
  await eventually(async () => {
    expect(await swarmctl("volume", "ls", "--format", "{{.Name}} {{.Nodes}} {{.Labels}}")).toBe(
      "data node-1,node-2 tier=gold\n",
    );
  });
  expect(
    (await swarmctl("service", "logs", "--raw", "all")).split("\n").filter((line) => line === "33:700"),
  ).toHaveLength(2);
  await expect(swarmctl("volume", "rm", "data")).rejects.toThrow("volume data is in use by service all");
  expect(copies("data")).toHaveLength(2);
  await swarmctl("service", "rm", "all");
  // The tasks are still leaving: the nodes wait for them.
  expect(await swarmctl("volume", "rm", "data")).toBe("data\n");
  expect(copies("data")).toEqual([]);
  expect(await swarmctl("volume", "ls", "-q")).toBe("");
});

rootTest("options of a volume that was made, and none left mounted", async () => {
  await swarmctl("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,mode=750", "fast");
  await swarmctl(
    "service",
    "create",
    "--name",
    "fast",
    "--mount",
    "source=fast,target=/fast",
    "demo/seed:1",
    "sh",
    "-c",
    `stat -f -c %T /fast; stat -c %a /fast; ${HOLD}`,
  );
  await eventually(async () => expect(await swarmctl("service", "logs", "--raw", "fast")).toBe("tmpfs\n750\n"));
  await swarmctl("service", "rm", "fast");
  await eventually(() => {
    for (const node of ["node-1", "node-2"]) expect(readdirSync(`${dataOf(node)}/mounts`)).toEqual([]);
  });
  expect(await swarmctl("volume", "prune", "--all", "--force")).toContain("Deleted Volumes:\nfast\n");
});

rootTest("a node that was away deletes what was removed meanwhile, and not what is made after", async () => {
  await swarmctl(
    "service",
    "create",
    "--name",
    "both",
    "--mode",
    "global",
    "--mount",
    "source=both,target=/both",
    "demo/seed:1",
    "sh",
    "-c",
    HOLD,
  );
  await eventually(() => expect(copies("both")).toHaveLength(2));
  await swarmctl("service", "rm", "both");
  await eventually(async () =>
    expect(await swarmctl("volume", "ls", "--format", "{{.Nodes}}")).toBe("node-1,node-2\n"),
  );
  await cluster.end(cluster.agent("node-2"), "SIGKILL");
  await swarmctl("wait", "node", "node-2", "--for", "down", "--timeout", "30s");
  await expect(swarmctl("volume", "rm", "both")).rejects.toThrow("volume both has data on node-2, which is down");
  await swarmctl("volume", "rm", "--force", "both");
  expect(copies("both")).toEqual([dataOf("node-2")]);
  cluster.startAgent(cluster.host("node-2"));
  await eventually(() => expect(copies("both")).toEqual([]), { timeoutMs: 30_000 });
  await swarmctl(
    "service",
    "create",
    "--name",
    "both",
    "--mode",
    "global",
    "--mount",
    "source=both,target=/both",
    "demo/seed:1",
    "sh",
    "-c",
    `echo new > /both/x; ${HOLD}`,
  );
  await eventually(async () =>
    expect(await swarmctl("volume", "ls", "--format", "{{.Nodes}}")).toBe("node-1,node-2\n"),
  );
  expect(copies("both").map((path) => existsSync(`${path}/volumes/both/x`))).toEqual([true, true]);
});
