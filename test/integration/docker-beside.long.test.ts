/**
 * Goal: Docker and an agent publish ports side by side on one host, and neither takes the other's rules away. Method:
 * Debian's dockerd in the network namespace of a host with a real NetworkManager. Docker's FORWARD
 * policy is in our way, and what `network check` says of it helps.
 */
import { afterAll, beforeAll, expect } from "vitest";
import { newId, type TaskId } from "../../common/base/id.ts";
import { systemRandom } from "../../common/base/random.ts";
import { DockerEngine, IMAGE, installDocker } from "../bench/docker-engine.ts";
import { eventually } from "../eventually.ts";
import { type ContainerStarted, HOST_ADDRESS, Lab } from "../network-lab.ts";
import { isRoot, rootTest } from "../privileges.ts";

const OURS = { address: "10.224.0.7", port: 8080 };
const THEIRS = { port: 9090 };

let lab: Lab;
let docker: DockerEngine;
let task: ContainerStarted;

beforeAll(async () => {
  if (!isRoot) return;
  installDocker();
  lab = await Lab.open();
  // Docker drops what is forwarded where it was the one that turned forwarding on.
  await lab.inHost("busybox", "sysctl", "-qw", "net.ipv4.ip_forward=0");
  docker = await DockerEngine.start(`/run/netns/${lab.hostNamespace}`);
  await lab.ask({ do: "open", pool: "10.224.0.0/12" });
  task = await lab.host.serveHttp({ taskId: newId<TaskId>(systemRandom), addresses: [`${OURS.address}/12`] }, "ours");
  const targets = [{ address: OURS.address, port: 80 }];
  await lab.ask({ do: "publish", ports: [{ protocol: "tcp", port: OURS.port, targets }] });
  await lab.ask({ do: "run" });
  const serve = ["sh", "-c", "echo theirs >/index.html; exec httpd -f -p 80 -h /"];
  await docker.docker("run", "-d", "--name", "theirs", "-p", `${THEIRS.port}:80`, IMAGE, ...serve);
}, 240_000);
afterAll(async () => {
  await docker?.[Symbol.asyncDispose]();
  await lab?.[Symbol.asyncDispose]();
}, 60_000);

function fetch(port: number): readonly string[] {
  return ["timeout", "2", "busybox", "wget", "-qO-", `http://${HOST_ADDRESS}:${port}/`];
}

/** Both from outside, from the host, from our task, and from Docker's container. */
async function bothServe(): Promise<void> {
  for (const [port, name] of [
    [OURS.port, "ours"],
    [THEIRS.port, "theirs\n"],
  ] as const) {
    expect(await lab.inClient(...fetch(port)), `${port} from outside`).toBe(name);
    expect(await lab.inHost(...fetch(port)), `${port} from the host`).toBe(name);
    expect(await lab.inContainer(task, ...fetch(port)), `${port} from the task`).toBe(name);
    const [, ...words] = fetch(port).slice(1);
    expect(await docker.docker("exec", "theirs", ...words), `${port} from Docker's`).toBe(name);
  }
}

rootTest("Docker's policy is told of with what to do, and then both serve", async () => {
  const [warning = ""] = (await lab.ask({ do: "warnings" })) as readonly string[];
  expect(warning).toContain("chain FORWARD of table ip filter drops forwarded packets");
  await lab.inHost("sh", "-c", warning.replace(/^.*: run /, ""));
  expect(await lab.ask({ do: "warnings" })).toEqual([]);
  await eventually(bothServe);
});

rootTest("Docker's changes of its rules leave ours, and ours leave Docker's", async () => {
  await docker.docker("run", "-d", "--name", "more", "-p", "9091:80", IMAGE, "sleep", "1d");
  await docker.docker("rm", "-f", "more");
  await bothServe();
  const theirs = () => lab.inHost("sh", "-c", "iptables-save | grep -v '^#\\|^:'");
  const before = await theirs();
  await lab.inHost("nft", "delete", "table", "ip", "swarm0");
  await eventually(bothServe);
  await lab.ask({ do: "removeAll" });
  expect(await theirs()).toBe(before);
  expect(await lab.inClient(...fetch(THEIRS.port))).toBe("theirs\n");
});
