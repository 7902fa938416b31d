/** A host on which the product is installed as people install it, and what tests ask of it. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { eventually } from "./eventually.ts";
import type { SystemRoot } from "./system-root.ts";

/** Resolves when the host's manager serves its cluster. */
export async function managerAnswers(root: SystemRoot): Promise<void> {
  await eventually(() => root.shell("swarmctl info"), { timeoutMs: 30_000, intervalMs: 200 });
}

/** Makes the host a cluster of one. */
export async function initCluster(root: SystemRoot): Promise<void> {
  await root.shell("swarmctl swarm init");
  await nodeIsReady(root);
}

export async function nodeIsReady(root: SystemRoot): Promise<void> {
  await eventually(
    async () => {
      const status = await root.shell("swarmctl node ls --format '{{.Status}}'");
      if (status !== "Ready\n") throw new Error(`the node is ${status}`);
    },
    { timeoutMs: 30_000, intervalMs: 200 },
  );
}

/** The process that systemd started for a unit; 0 = none. */
export async function mainPid(root: SystemRoot, unit: string): Promise<number> {
  return Number(await root.shell(`systemctl show --property MainPID --value ${unit}`));
}

/** Each process of each container with the time it began at: whatever is started anew differs. */
export async function containerProcesses(root: SystemRoot): Promise<readonly string[]> {
  const found = await root.shell(`
    find /sys/fs/cgroup -path '*/swarm-*/container-*/cgroup.procs' -exec cat {} + | sort -nu |
    while read -r pid; do cut -d ' ' -f 1,22 "/proc/$pid/stat"; done`);
  return found.split("\n").filter(Boolean);
}

/** As cloud-init does. */
export async function writeFiles(
  root: SystemRoot,
  files: readonly { readonly path: string; readonly permissions: string; readonly content: string }[],
): Promise<void> {
  for (const { path, permissions, content } of files) {
    writeFileSync(join(root.share, "content"), content);
    await root.shell(`mkdir -p "$(dirname ${path})"; install -m ${permissions} /mnt/share/content ${path}`);
  }
}
