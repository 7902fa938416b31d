/** An NFS server of the machine: the kernel's, with Debian's programs. It serves one directory by version 4. */
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";

/** Starts the server; `root` is what clients mount as `/`. */
export function startFileServer(root: string): void {
  mkdirSync(root, { recursive: true });
  mkdirSync("/var/lib/nfs/v4recovery", { recursive: true });
  writeFileSync("/etc/exports", `${root} 127.0.0.1(rw,no_root_squash,no_subtree_check,fsid=0,insecure)\n`);
  execFileSync("modprobe", ["nfsd"]);
  execFileSync("mount", ["-t", "nfsd", "nfsd", "/proc/fs/nfsd"]);
  execFileSync("exportfs", ["-r"]);
  spawn("rpc.mountd", ["--no-nfs-version", "3", "--foreground"], { stdio: "ignore" });
  serveFiles(4);
}

/** How many threads serve; with none, clients wait for an answer. */
export function serveFiles(threads: number): void {
  execFileSync("rpc.nfsd", ["--no-nfs-version", "3", "--no-udp", `${threads}`]);
  // Nobody has anything to reclaim: without this a new server lets clients open nothing for 90 s.
  if (threads > 0) writeFileSync("/proc/fs/nfsd/v4_end_grace", "Y");
}

/** A port of a server that accepts and never answers. */
export async function listenInSilence(): Promise<{ readonly port: number; close(): void }> {
  const server = createServer(() => {});
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { port: (server.address() as AddressInfo).port, close: () => server.close() };
}
