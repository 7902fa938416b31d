// Goal: the right hierarchy is chosen on v1, v2 and hybrid hosts. Method: mountinfo texts of such hosts.
import { describe, expect, test } from "vitest";
import { type CgroupHierarchy, detectCgroups } from "./hierarchy.ts";

const V1 = `23 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
39 31 0:36 / /sys/fs/cgroup/pids\\040x rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
`;
const UNIFIED = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

function detect(mountinfo: string, controllers?: string): Promise<CgroupHierarchy> {
  return detectCgroups(async (path) => {
    if (path === "/proc/self/mountinfo") return mountinfo;
    if (path === "/sys/fs/cgroup/unified/cgroup.controllers" && controllers !== undefined) return controllers;
    throw new Error(`unexpected read of ${path}`);
  });
}

describe("detectCgroups", () => {
  test("v2 when it has what limits need", async () => {
    const hierarchy = await detect(UNIFIED, "cpuset cpu io memory hugetlb pids\n");
    expect(hierarchy).toMatchObject({ version: 2, mount: "/sys/fs/cgroup/unified" });
    expect(await detect(V1 + UNIFIED, "cpu memory pids\n")).toMatchObject({ version: 2 });
  });

  test("v1 alone, and on a hybrid host whose v2 has no controllers", async () => {
    for (const hierarchy of [
      await detect(V1),
      await detect(V1 + UNIFIED, "hugetlb\n"),
      await detect(V1 + UNIFIED, "\n"),
    ]) {
      if (hierarchy.version !== 1) throw new Error("not v1");
      expect(hierarchy.mounts.get("memory")).toBe("/sys/fs/cgroup/memory");
      expect(hierarchy.mounts.get("cpuacct")).toBe("/sys/fs/cgroup/cpu,cpuacct");
      expect(hierarchy.mounts.get("pids")).toBe("/sys/fs/cgroup/pids x");
    }
  });

  test("says what is missing", async () => {
    await expect(detect(V1.replace(/.*pids.*\n/, ""))).rejects.toThrow("controllers pids are not mounted");
    await expect(detect(UNIFIED, "cpu\n")).rejects.toThrow("controllers memory, pids are not mounted");
    await expect(detect("")).rejects.toMatchObject({ code: "failed_precondition" });
  });
});
