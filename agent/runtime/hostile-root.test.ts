/**
 * Goal: nothing that an image holds lets a container reach the host (docs of CVE-2019-5736, 2024-21626, 2024-45310,
 * 2025-31133, 2026-41579). Method: real containers whose root holds links to a bait directory of the host.
 */
import { execFileSync } from "node:child_process";
import { chmod, mkdir, open, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect } from "vitest";
import { rootTest } from "../../test/privileges.ts";
import type { ContainerPath, HostPath } from "./op.ts";
import { NEVER, TestContainers } from "./test-root.ts";

let containers: TestContainers;
beforeAll(async () => {
  if (process.getuid?.() === 0) containers = await TestContainers.create();
});
afterAll(async () => containers?.[Symbol.asyncDispose]());

/** An image layer over busybox, and a host directory that must stay as it is. */
async function bait(name: string): Promise<{ layer: HostPath; host: string }> {
  const layer = join(containers.directory, `${name}-layer`) as HostPath;
  const host = join(containers.directory, `${name}-host`);
  await mkdir(layer);
  await mkdir(host);
  return { layer, host };
}

rootTest("links at /dev /proc /sys /etc /tmp /run lead into the container's root, never to the host", async () => {
  for (const name of ["dev", "proc", "sys", "etc", "tmp", "run"]) {
    const { layer, host } = await bait(`link-${name}`);
    await symlink(host, join(layer, name));
    const source = join(containers.directory, "bound-file");
    await writeFile(source, "bound");
    const plan = await containers.plan(["cat", `/${name}/bound`], {
      lowers: [layer],
      // Procfs and sysfs hold no new files.
      mounts: /proc|sys/.test(name) ? [] : [{ destination: `/${name}/bound`, type: "bind", source, options: ["bind"] }],
    });
    // A link whose own path leads through itself is a loop inside the root: refused, and harmless too.
    await using supervisor = await containers.start(plan).catch((reason: unknown) => {
      expect(String(reason)).toMatch(/: (ELOOP|ENOENT)$/);
      return undefined;
    });
    await supervisor?.ended;
    expect(await readdir(host)).toEqual([]);
  }
});

rootTest("a working directory that leads to a descriptor is refused", async () => {
  for (let fd = 3; fd < 31; fd++) {
    const plan = await containers.plan(["true"], { process: { cwd: `/proc/self/fd/${fd}` } });
    await expect(containers.runner.create(plan, NEVER)).rejects.toThrow(/set working directory \/proc\/self\/fd/);
  }
  const { layer } = await bait("cwd");
  await symlink("/proc/self/fd/5", join(layer, "work"));
  const plan = await containers.plan(["true"], { lowers: [layer], process: { cwd: "/work" } });
  await expect(containers.runner.create(plan, NEVER)).rejects.toThrow(/set working directory/);
});

rootTest("no descriptor of the host is left open, and a missing working directory is made", async () => {
  const { output } = await containers.run(
    ["sh", "-c", "ls -l /proc/self/fd; cd ..; cat /proc/self/cwd/made/x || ls -d /made"],
    {
      process: { cwd: "/made" },
    },
  );
  const open = [...output.matchAll(/ (\d+) -> (\S+)/g)].map(
    ([, fd, target]) => `${fd} ${target?.replace(/\d+/g, "N")}`,
  );
  expect(open).toEqual(["0 /dev/null", "1 pipe:[N]", "2 pipe:[N]"]);
  expect(output).toContain("/made");
});

rootTest("the shim's own file cannot be written through /proc/PID/exe", async () => {
  const plan = await containers.plan(["sleep", "100"], { init: true });
  await using supervisor = await containers.start(plan);
  const { pid, supervisorPid } = await supervisor.state(NEVER);
  for (const id of [pid, supervisorPid]) {
    await expect(open(`/proc/${id}/exe`, "r+")).rejects.toThrow(/ETXTBSY|EPERM|EACCES/);
  }
  await supervisor.signal({ number: 9, all: false }, NEVER);
  await supervisor.ended;
});

rootTest("a bind over a dangling link lands inside the root", async () => {
  const { layer, host } = await bait("dangling");
  await mkdir(join(layer, "etc"));
  await symlink(join(host, "resolv.conf"), join(layer, "etc/resolv.conf"));
  const source = join(containers.directory, "resolv.conf") as HostPath;
  await writeFile(source, "nameserver 127.0.0.11\n");
  const plan = await containers.plan(["cat", "/etc/resolv.conf"], {
    lowers: [layer],
    mounts: [{ destination: "/etc/resolv.conf", type: "bind", source, options: ["bind", "ro"] }],
  });
  await using supervisor = await containers.start(plan);
  expect(await supervisor.ended).toMatchObject({ record: { code: 0 } });
  expect(await readFile(join(plan.stateDirectory, "log"), "utf8")).toContain("nameserver 127.0.0.11");
  expect(await readdir(host)).toEqual([]);
});

rootTest("readFile stays inside the layers and reads regular files only", async () => {
  const { layer, host } = await bait("read");
  await mkdir(join(layer, "etc"));
  await writeFile(join(host, "secret"), "host");
  await writeFile(join(layer, "etc/passwd"), "root:x:0:0::/root:/bin/sh\n");
  await symlink(join(host, "secret"), join(layer, "etc/out"));
  execFileSync("mkfifo", [join(layer, "etc/fifo")]);
  execFileSync("mknod", [join(layer, "etc/endless"), "c", "1", "5"]);
  await symlink("../../../../../../etc/passwd", join(layer, "etc/up"));
  const read = (path: string, layers: readonly HostPath[], maxBytes = 1000) =>
    containers.runner.readFile({ layers, path: path as ContainerPath, maxBytes }, NEVER).then(String);
  for (const layers of [[layer], [layer, containers.layer]]) {
    expect(await read("/etc/passwd", layers)).toContain("root:x:0:0");
    expect(await read("/etc/up", layers)).toContain("root:x:0:0");
    await expect(read("/etc/out", layers)).rejects.toMatchObject({ code: "not_found" });
    await expect(read("/etc/passwd", layers, 5)).rejects.toMatchObject({ code: "out_of_range" });
    // Nobody waits for a FIFO's writer, nor reads a device without end.
    for (const path of ["/etc/fifo", "/etc/endless"]) {
      await expect(read(path, layers)).rejects.toMatchObject({ code: "failed_precondition" });
    }
    await expect(read("/etc", layers)).rejects.toMatchObject({ code: "failed_precondition" });
  }
  expect((await read("/bin/busybox", [layer, containers.layer], 4 << 20)).length).toBeGreaterThan(1000);
});

rootTest("removeTree deletes deep trees, follows no link and leaves other file systems alone", async () => {
  const { layer: tree, host } = await bait("remove");
  await writeFile(join(host, "keep"), "");
  await symlink(host, join(tree, "link"));
  // A name that the shim itself would use on the way.
  await mkdir(join(tree, ".moved-1/in/the/way"), { recursive: true });
  let path = join(tree, "deep");
  for (let depth = 0; depth < 100; depth++) path = join(path, `d${depth}`);
  await mkdir(path, { recursive: true });
  for (let index = 0; index < 300; index++) await writeFile(join(tree, `file-${index}`), "");
  await chmod(path, 0o000);
  await containers.runner.removeTree(tree, NEVER);
  await expect(readdir(tree)).rejects.toThrow("ENOENT");
  expect(await readdir(host)).toEqual(["keep"]);
  await containers.runner.removeTree(tree, NEVER);
  await rm(host, { recursive: true });
});

rootTest("a mount point that is swapped for a link all the time never leads out (CVE-2021-30465)", async () => {
  const { layer, host } = await bait("swap");
  const volume = join(containers.directory, "swap-volume");
  await mkdir(join(volume, "target/inner"), { recursive: true });
  await symlink(host, join(volume, "link"));
  await writeFile(join(volume, "data"), "");
  // One container renames for ever what the other one mounts on; busybox has no RENAME_EXCHANGE, three renames do.
  const swap = "while true; do mv target t; mv link target; mv target link; mv t target; done";
  const mounts = [{ destination: "/vol", type: "bind", source: volume, options: ["rbind"] }];
  const swapper = await containers.plan(["sh", "-c", `ln -s busybox /bin/mv; cd /vol; ${swap}`], { mounts });
  await using supervisor = await containers.start(swapper);
  for (let round = 0; round < 30; round++) {
    const source = layer;
    const plan = await containers.plan(["true"], {
      mounts: [...mounts, { destination: "/vol/target/inner", type: "bind", source, options: ["rbind"] }],
    });
    const created = await containers.start(plan).catch(() => undefined);
    await created?.ended;
    await created?.[Symbol.asyncDispose]();
    expect(await readdir(host)).toEqual([]);
  }
  await supervisor.signal({ number: 9, all: false }, NEVER);
  await supervisor.ended;
});
