/**
 * Goal: real software from a real registry runs and stays up while its nodes do not. Method: Debian's nginx in a root
 * made of Debian's packages, three layers, pushed by skopeo to Debian's docker-registry, pulled by two agents on two
 * hosts.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect } from "vitest";
import { eventually } from "../eventually.ts";
import { buildImage } from "../images.ts";
import { isRoot, rootTest } from "../privileges.ts";
import { directory, file } from "../tar.ts";
import { TestCluster } from "./cluster.ts";

const LIBRARIES = ["libc6", "libcrypt1", "libpcre2-8-0", "libssl3", "zlib1g"];
const SERVER = ["nginx", "nginx-common"];
const CONFIGURATION = `daemon off; master_process on; worker_processes 1; pid /run/nginx.pid; error_log /dev/stderr;
events {}
http { access_log /dev/stdout; server { listen 80; root /srv; } }
`;

let cluster: TestCluster;
let registry: string;

/** A layer of the files of Debian packages, unpacked by dpkg. */
function packageLayer(folder: string, packages: readonly string[]): Buffer {
  const root = join(folder, "root");
  mkdirSync(root, { recursive: true });
  execFileSync("apt-get", ["download", "-q", "-o", "APT::Sandbox::User=root", ...packages], {
    cwd: folder,
    stdio: "pipe",
  });
  for (const name of readdirSync(folder).filter((each) => each.endsWith(".deb"))) {
    execFileSync("dpkg", ["-x", join(folder, name), root]);
  }
  return execFileSync("tar", ["-C", root, "--sort=name", "-c", "."], { maxBuffer: 256 * 1024 * 1024 });
}

/** Pushes nginx with a page that says `version`. */
async function push(version: string, layers: readonly { readonly tar: Buffer }[]): Promise<void> {
  const site = [
    directory("etc"),
    file(
      "etc/passwd",
      "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\n",
    ),
    file("etc/group", "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n"),
    file("etc/nginx/nginx.conf", CONFIGURATION),
    directory("run"),
    directory("tmp", 0o1777),
    file("srv/index.html", `nginx ${version}\n`),
  ];
  const config = { Entrypoint: ["/usr/sbin/nginx"], ExposedPorts: { "80/tcp": {} }, StopSignal: "SIGQUIT" };
  const archive = buildImage({
    name: `debian/nginx:${version}`,
    directory: cluster.folder("images"),
    layers: [...layers, { files: site }],
    config,
  });
  const pushed = await cluster.exec(
    "skopeo",
    "copy",
    "--dest-tls-verify=false",
    `oci-archive:${archive}`,
    `docker://${registry}/debian/nginx:${version}`,
  );
  expect(pushed.code, pushed.stderr).toBe(0);
}

beforeAll(async () => {
  if (!isRoot) return;
  cluster = await TestCluster.start({ nodes: 2 });
  registry = `${cluster.fabric.address}:5000`;
  const data = cluster.folder("registry");
  const settings = join(data, "config.yml");
  writeFileSync(
    settings,
    `version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: ${data}\nhttp:\n  addr: ${registry}\n`,
  );
  cluster.startProgram("registry", cluster.fabric, "docker-registry", "serve", settings);
  await eventually(() => cluster.fetch(`http://${registry}/v2/`));
  const layers = [
    { tar: packageLayer(cluster.folder("libraries"), LIBRARIES) },
    { tar: packageLayer(cluster.folder("server"), SERVER) },
  ];
  await push("one", layers);
  await push("two", layers);
});

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

async function answers(expected: string, hosts = cluster.hosts): Promise<void> {
  for (const { address } of hosts) expect(await cluster.fetch(`http://${address}:8088/`)).toBe(`${expected}\n`);
}

rootTest("nginx is pulled by both nodes and answers on its published port", async () => {
  const image = `${registry}/debian/nginx:one`;
  await cluster.swarmctl("service", "create", "--name", "nginx", "--replicas", "2", "-p", "8088:80", image);
  expect((await cluster.tasks("nginx")).map((task) => task.split(" ").slice(1).join(" ")).toSorted()).toEqual([
    "node-1 Running",
    "node-2 Running",
  ]);
  await answers("nginx one");
});

rootTest("it is updated and scaled", async () => {
  await cluster.swarmctl(
    "service",
    "update",
    "--image",
    `${registry}/debian/nginx:two`,
    "--update-monitor",
    "500ms",
    "nginx",
  );
  await answers("nginx two");
  await cluster.swarmctl("service", "scale", "nginx=4");
  expect(await cluster.tasks("nginx")).toHaveLength(4);
  await answers("nginx two");
});

rootTest("its node is killed and its tasks run elsewhere", async () => {
  const victim = cluster.host("node-2");
  cluster.setLink(victim, "down");
  await cluster.end(cluster.agent("node-2"), "SIGKILL");
  await eventually(
    async () =>
      expect((await cluster.tasks("nginx")).filter((task) => task.includes("node-1 Running"))).toHaveLength(4),
    { timeoutMs: 30_000 },
  );
  await answers("nginx two", [cluster.host("node-1")]);
});

rootTest(
  "with the registry down a node that has the image still starts tasks, and one that has not says why",
  async () => {
    await cluster.end(cluster.program("registry"), "SIGTERM");
    await cluster.swarmctl("service", "scale", "nginx=5");
    await cluster.swarmctl(
      "service",
      "create",
      "-d",
      "--name",
      "absent",
      "--restart-condition",
      "none",
      `${registry}/debian/absent:1`,
    );
    await eventually(
      async () => {
        const state = await cluster.swarmctl(
          "service",
          "ps",
          "absent",
          "--no-trunc",
          "--format",
          "{{.CurrentState}} {{.Error}}",
        );
        expect(state).toMatch(/^Rejected .*(refused|ECONNREFUSED)/);
      },
      { timeoutMs: 60_000 },
    );
  },
);
