/** Finds out which cgroups the host offers: the one tree of v2, or one tree per controller of v1, or a mix of both. */
import { SwarmError } from "../../common/base/error.ts";

/** Where the host's cgroups are mounted. */
export type CgroupHierarchy =
  | {
      readonly version: 1;
      /** Mount point by controller; controllers mounted together share one. */
      readonly mounts: ReadonlyMap<string, string>;
    }
  | {
      readonly version: 2;
      readonly mount: string;
      /** What `cgroup.controllers` of the mount lists. */
      readonly controllers: ReadonlySet<string>;
    };

/** Reads a whole file of /proc or /sys as text; a test hands in its own. */
export type ReadText = (path: string) => Promise<string>;

/** All that v1 knows; a mount's other options are not controllers. */
const CONTROLLERS_V1 = new Set(
  "blkio cpu cpuacct cpuset devices freezer hugetlb memory misc net_cls net_prio perf_event pids rdma".split(" "),
);

/** Without these a task's limits would be promises. */
const REQUIRED_V2 = ["memory", "cpu", "pids"];
const REQUIRED_V1 = [...REQUIRED_V2, "cpuacct", "devices", "freezer"];

/**
 * v2 where it has the memory, cpu and pids controllers; else v1, also on hybrid hosts whose v2 tree is for systemd only.
 * Mount points are taken as the base whatever cgroup they show, so it works inside a container too. Throws
 * `failed_precondition` that names what is missing where neither will do.
 */
export async function detectCgroups(readText: ReadText): Promise<CgroupHierarchy> {
  const mounts = parseMounts(await readText("/proc/self/mountinfo"));
  const unified = mounts.find(({ type }) => type === "cgroup2");
  const controllers = new Set<string>();
  if (unified !== undefined) {
    const text = await readText(`${unified.path}/cgroup.controllers`);
    for (const name of text.trim().split(/\s+/)) controllers.add(name);
    const missing = REQUIRED_V2.filter((name) => !controllers.has(name));
    if (missing.length === 0) return { version: 2, mount: unified.path, controllers };
  }
  const byController = new Map<string, string>();
  for (const { type, path, options } of mounts) {
    if (type !== "cgroup") continue;
    for (const name of options.filter((option) => CONTROLLERS_V1.has(option) && !byController.has(option))) {
      byController.set(name, path);
    }
  }
  const missing = REQUIRED_V1.filter((name) => !byController.has(name));
  if (missing.length === 0) return { version: 1, mounts: byController };
  const wanted = byController.has("memory") ? missing : REQUIRED_V2.filter((name) => !controllers.has(name));
  throw new SwarmError("failed_precondition", `no usable cgroups: controllers ${wanted.join(", ")} are not mounted`);
}

interface Mount {
  readonly type: string;
  readonly path: string;
  /** Of the super block; a v1 mount names its controllers here. */
  readonly options: readonly string[];
}

/** proc_pid_mountinfo(5): `36 35 0:30 / /mnt rw,noatime master:1 - type source superoptions`. */
function parseMounts(mountinfo: string): readonly Mount[] {
  return mountinfo.split("\n").flatMap((line) => {
    const [mount = "", superblock = ""] = line.split(" - ");
    const path = mount.split(" ")[4];
    const [type, , options = ""] = superblock.split(" ");
    if (path === undefined || type === undefined) return [];
    return [{ type, path: unescapeOctal(path), options: options.split(",") }];
  });
}

/** Blanks and backslashes stand in mountinfo as `\040`. */
function unescapeOctal(path: string): string {
  return path.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
