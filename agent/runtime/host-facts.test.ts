// Goal: a node describes itself truly. Method: files of two unlike hosts, and this host itself.
import { readFile } from "node:fs/promises";
import { cpus, totalmem } from "node:os";
import { expect, test } from "vitest";
import { readHostFacts } from "./host-facts.ts";

function host(files: Readonly<Record<string, string>>): (path: string) => Promise<string> {
  return async (path) => {
    const text = files[path];
    if (text === undefined) throw new Error(`no ${path}`);
    return text;
  };
}

const MODERN = {
  "/proc/sys/kernel/osrelease": "6.1.0-30-cloud-amd64\n",
  "/proc/sys/kernel/hostname": "node-7\n",
  "/etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
  "/sys/devices/system/cpu/online": "0-2,6,8-9\n",
  "/proc/meminfo": "MemTotal:       24576000 kB\nMemFree: 1 kB\n",
  "/proc/filesystems": "nodev\tsysfs\n\text4\n",
  "/lib/modules/6.1.0-30-cloud-amd64/modules.dep": "kernel/fs/overlayfs/overlay.ko.xz:\n",
  "/proc/sys/kernel/seccomp/actions_avail": "kill_process kill_thread trap errno user_notif trace log allow\n",
  "/sys/module/apparmor/parameters/enabled": "Y\n",
  "/proc/self/status": "Name:\tnode\nCapEff:\t000001ffffffffff\n",
  "/proc/sys/fs/nr_open": "1048576\n",
  "/proc/self/mountinfo": "24 1 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
  "/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
};

test("a modern host", async () => {
  expect(await readHostFacts(host(MODERN), "x64")).toEqual({
    hostname: "node-7",
    kernel: "6.1.0-30-cloud-amd64",
    architecture: "x86_64",
    operatingSystem: "Debian GNU/Linux 12 (bookworm)",
    cpus: 6,
    nanoCpus: 6e9,
    memoryBytes: 24_576_000 * 1024,
    openFilesMax: 1_048_576,
    capabilityMask: 0x1ffffffffffn,
    cgroupVersion: 2,
    overlay: true,
    seccomp: true,
    apparmor: true,
  });
});

test("a bare host lacks features without failing, a host without cgroups fails", async () => {
  const required = new Set([
    "osrelease",
    "hostname",
    "online",
    "meminfo",
    "filesystems",
    "mountinfo",
    "status",
    "nr_open",
    "cgroup.controllers",
  ]);
  const bare = Object.fromEntries(Object.entries(MODERN).filter(([path]) => required.has(path.split("/").pop() ?? "")));
  expect(await readHostFacts(host(bare), "arm64")).toMatchObject({
    architecture: "aarch64",
    operatingSystem: "Linux",
    overlay: false,
    seccomp: false,
    apparmor: false,
  });
  const weak = {
    ...MODERN,
    "/proc/self/status": "CapEff:\t000001fffeffffff\n",
    "/proc/self/limits": "Max processes  96  96  processes\nMax open files  1024  20000  files\n",
  };
  expect((await readHostFacts(host(weak), "x64")).openFilesMax).toBe(20_000);
  await expect(readHostFacts(host({ ...bare, "/proc/self/mountinfo": "" }), "x64")).rejects.toThrow(
    "no usable cgroups",
  );
  await expect(readHostFacts(host(MODERN), "mips")).rejects.toThrow("not mips");
});

test("this host", async () => {
  const facts = await readHostFacts((path) => readFile(path, "utf8"), process.arch);
  expect(facts.cpus).toBe(cpus().length);
  expect(facts.memoryBytes).toBe(totalmem());
});
