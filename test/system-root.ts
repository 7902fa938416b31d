/**
 * A whole system to install things on: this machine's own Debian, or another tree, seen through a layer that is thrown away, in
 * namespaces of its own (a network of one host, cgroups of its own), with a real systemd as its first process. Needs root.
 */
import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { eventually } from "./eventually.ts";

/** How a program ended. */
export interface RootAnswer {
  readonly stdout: string;
  readonly stderr: string;
  readonly code: number;
}

/** Runs in the new namespaces, sees the machine's own files, and ends as the system's first process. */
const SETUP = `
set -eu
IFS= read -r stat </proc/self/stat
mount --make-rprivate /
mount -t tmpfs tmpfs "$STAGE"
mkdir "$STAGE/upper" "$STAGE/work" "$STAGE/root"
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$STAGE/upper,workdir=$STAGE/work" "$STAGE/root"
cd "$STAGE/root"
mkdir -p proc sys run tmp dev mnt/share etc/systemd/system
mount -t proc proc proc
mount -t sysfs sysfs sys
for each in run tmp dev sys/fs/cgroup; do mount -t tmpfs -o mode=755 tmpfs "$each"; done
chmod 1777 tmp
mount --bind "$SHARE" mnt/share
# A disk of its own: layers cannot be mounted over the layer that all this is.
mkdir -p var/lib/swarm
mount -t tmpfs -o mode=755 tmpfs var/lib/swarm
mkdir dev/pts dev/shm dev/mqueue
for each in null zero full random urandom tty; do : >"dev/$each"; mount --bind "/dev/$each" "dev/$each"; done
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
# The same hierarchies as outside, from this cgroup down.
printf %s "$HIERARCHIES" | while read -r path type options; do
  mkdir -p ".$path"
  mount -t "$type" $options cgroup ".$path"
done
# No service of the machine's is started, and nobody forbids ours to be.
rm -f usr/sbin/policy-rc.d var/lib/man-db/auto-update
ln -sf /dev/null etc/systemd/system/timers.target
ln -sf /dev/null etc/systemd/system/modprobe@.service
printf '[Unit]\\nRequires=sysinit.target\\nAfter=sysinit.target\\n' >etc/systemd/system/bare.target
ip link set lo up
ip link add eth0 type veth peer name wire
ip address add 192.0.2.1/24 dev eth0
ip link set eth0 up
ip link set wire up
echo "started $stat"
exec chroot . /usr/bin/env -i container=test PATH="$PATH" $INIT
`;

const SYSTEMD = "/lib/systemd/systemd --unit=bare.target --log-target=null";

/** A hierarchy of cgroups: where it is mounted, and how it can be mounted again. */
interface Hierarchy {
  readonly path: string;
  readonly type: string;
  readonly options: string;
}

function hierarchies(): readonly Hierarchy[] {
  const mounts = readFileSync("/proc/mounts", "utf8").split("\n");
  return mounts.flatMap((line) => {
    const [, path = "", type = "", all = ""] = line.split(" ");
    if (type === "cgroup2") return [{ path, type, options: "" }];
    if (type !== "cgroup") return [];
    const own = all
      .split(",")
      .filter((option) => !/^(rw|ro|nosuid|nodev|noexec|relatime|xattr|release_agent=.*)$/.test(option));
    const named = own.some((option) => option.startsWith("name="));
    return [{ path, type, options: `-o ${[...(named ? ["none"] : []), ...own].join(",")}` }];
  });
}

/** A running system. */
export class SystemRoot implements AsyncDisposable {
  /** What it sees as /mnt/share. */
  readonly share: string;
  readonly #name: string;
  readonly #folder: string;
  readonly #holder: ChildProcess;
  readonly #pid: string;

  private constructor(name: string, folder: string, holder: ChildProcess, pid: string) {
    this.#name = name;
    this.#folder = folder;
    this.#holder = holder;
    this.#pid = pid;
    this.share = join(folder, "share");
  }

  /** Over `lower`, a whole Debian; default: this machine. Resolves when systemd has come up. */
  static async start(lower = "/"): Promise<SystemRoot> {
    const name = `swarm-root-${randomBytes(4).toString("hex")}`;
    const folder = mkdtempSync(join(tmpdir(), `${name}-`));
    for (const each of ["share", "stage"]) mkdirSync(join(folder, each));
    const known = hierarchies();
    const cgroups = known.map(({ path }) => makeCgroup(join(path, name)));
    // The shell moves itself before it makes the namespaces: cgroup namespaces begin where their maker is.
    const move = cgroups.map((path) => `echo $$ >${path}/cgroup.procs`).join(" && ");
    const kinds = ["--mount", "--net", "--uts", "--ipc", "--pid", "--cgroup"];
    const holder = spawn(
      "sh",
      ["-c", `${move} && exec unshare ${kinds.join(" ")} --fork --kill-child sh -c "$SETUP"`],
      {
        env: {
          PATH: process.env.PATH ?? "",
          SETUP,
          LOWER: lower,
          STAGE: join(folder, "stage"),
          SHARE: join(folder, "share"),
          HIERARCHIES: known.map(({ path, type, options }) => `${path} ${type} ${options}\n`).join(""),
          INIT: SYSTEMD,
        },
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    let complaints = "";
    holder.stderr.on("data", (data) => (complaints += data));
    const pid = await new Promise<string>((resolve, reject) => {
      createInterface({ input: holder.stdout }).on("line", (line) => {
        const started = /^started (\d+) /.exec(line)?.[1];
        if (started !== undefined) resolve(started);
      });
      holder.once("close", (code) => reject(new Error(`no root: exit code ${code}: ${complaints}`)));
    }).catch(async (reason: unknown) => {
      await removeTraces(name, folder);
      throw reason;
    });
    const root = new SystemRoot(name, folder, holder, pid);
    await eventually(
      async () => {
        const { stdout, stderr } = await root.run("systemctl", "is-system-running");
        if (!/running|degraded/.test(stdout)) throw new Error(`systemd is ${stdout}${stderr}`);
      },
      { timeoutMs: 30_000, intervalMs: 100 },
    );
    return root;
  }

  /** Lays a cable to another system, in the place of that one's own network: this one is 192.0.2.1, the other `address`. */
  connect(other: SystemRoot, address: string): void {
    const inNetwork = (pid: string, ...args: readonly string[]) =>
      execFileSync("nsenter", ["--target", pid, "--net", "ip", ...args], { encoding: "utf8" });
    inNetwork(other.#pid, "link", "delete", "eth0");
    inNetwork(this.#pid, "link", "set", "wire", "netns", other.#pid);
    inNetwork(other.#pid, "link", "set", "wire", "name", "eth0");
    inNetwork(other.#pid, "address", "add", `${address}/24`, "dev", "eth0");
    inNetwork(other.#pid, "link", "set", "eth0", "up");
  }

  /** Runs a program there. */
  run(program: string, ...args: readonly string[]): Promise<RootAnswer> {
    const argv = ["--target", this.#pid, "--all", "--root", "--wd", program, ...args];
    const env = {
      PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      HOME: "/root",
      LC_ALL: "C.UTF-8",
    };
    return new Promise((resolve) => {
      execFile("nsenter", argv, { encoding: "utf8", env, timeout: 120_000 }, (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === "number" ? error.code : 255;
        resolve({ stdout, stderr, code });
      });
    });
  }

  /** Runs a script, which must succeed; answers what it printed. */
  async shell(script: string): Promise<string> {
    const { stdout, stderr, code } = await this.run("sh", "-ec", script);
    if (code !== 0) throw new Error(`${script}\nexit code ${code}: ${stderr}${stdout}`);
    return stdout;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const gone = new Promise((resolve) => this.#holder.once("close", resolve));
    // All of its processes end with the first.
    process.kill(Number(this.#pid), "SIGKILL");
    await gone;
    await removeTraces(this.#name, this.#folder);
  }
}

async function removeTraces(name: string, folder: string): Promise<void> {
  const cgroups = hierarchies().map(({ path }) => join(path, name));
  // The kernel needs a moment to see that the last process is gone.
  await eventually(() => {
    for (const path of cgroups.filter((each) => existsSync(each))) {
      execFileSync("find", [path, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+"], { stdio: "ignore" });
    }
  });
  rmSync(folder, { recursive: true, force: true });
}

/** v1's cpuset takes no process before it has processors and memory. */
function makeCgroup(path: string): string {
  mkdirSync(path);
  for (const file of ["cpuset.cpus", "cpuset.mems"]) {
    try {
      const inherited = readFileSync(join(path, "..", file), "utf8");
      writeFileSync(join(path, file), inherited);
    } catch {
      // Another hierarchy.
    }
  }
  return path;
}
