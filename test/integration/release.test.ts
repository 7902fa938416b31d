/**
 * Goal: what hosts get. The same commit gives the same bytes wherever it is built; the package and the tarball install, run, upgrade under
 * running containers and go again. Method: build here and in a copy of the checkout at another place; then dpkg and install.sh in
 * whole systems with a real systemd (`test/system-root.ts`), swarmctl as an administrator uses it. The long form builds everything twice, and
 * installs on a Debian that debootstrap made.
 */
import { execFile, execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { projectVersion } from "../../common/base/version.ts";
import { writeDemoImage } from "../../deploy/demo/image.ts";
import { buildShim } from "../../deploy/release/shim.ts";
import { ARCHITECTURES } from "../../deploy/release/target.ts";
import { elfOf, MACHINES } from "../elf.ts";
import { eventually } from "../eventually.ts";
import { expectLabels, onFedora } from "../fedora-host.ts";
import {
  containerProcesses,
  initCluster,
  mainPid,
  managerAnswers,
  nodeIsReady,
  writeFiles,
} from "../installed-host.ts";
import { SystemRoot } from "../system-root.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
const LONG = process.env.SWARM_TEST_LONG === "1";
// The other architecture's Node is a large download.
const NATIVE = process.arch === "arm64" ? "arm64" : "amd64";
const BUILT = ARCHITECTURES.filter((name) => LONG || name === NATIVE);
const execute = promisify(execFile);
// Beside the checkout, for hard links.
const folder = mkdtempSync(join(dirname(ROOT.replace(/\/$/, "")), ".swarm-release-test-"));
const [first, second] = [join(folder, "first"), join(folder, "second")];

async function release(checkout: string, out: string, architectures: string): Promise<void> {
  const argv = ["deploy/release.ts", "--arch", architectures, "--out", out];
  await execute(join(checkout, "node_modules/.bin/node"), argv, {
    cwd: checkout,
    env: { ...process.env, SOURCE_DATE_EPOCH: "1700000000", TZ: "Pacific/Chatham" },
  });
}

/** The tracked files and their packages somewhere else; nothing of what was built. */
function copyCheckout(to: string): void {
  mkdirSync(to);
  const tracked = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard", "-z"], { cwd: ROOT });
  for (const path of tracked.toString().split("\0").filter(Boolean)) {
    cpSync(join(ROOT, path), join(to, path), { recursive: true });
  }
  execFileSync("cp", ["-al", join(ROOT, "node_modules"), join(to, "node_modules")]);
}

const digest = (path: string) => createHash("sha256").update(readFileSync(path)).digest("hex");
const artefact = (end: string) => readdirSync(first).find((name) => name.endsWith(end)) ?? "";

/** A suite on systems of its own, beside the others; its tests come one after the other. */
function installed(name: string, tests: () => void): void {
  describe(name, { concurrent: true }, () => void describe("in turn", { concurrent: false }, tests));
}

beforeAll(async () => {
  copyCheckout(join(folder, "checkout"));
  await Promise.all([
    release(ROOT, first, BUILT.join(",")),
    release(join(folder, "checkout"), second, BUILT.join(",")),
  ]);
}, 300_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("artefacts", () => {
  test("the same bytes in another place", () => {
    const artefacts = readdirSync(second).filter((name) => name !== "SHA256SUMS");
    expect(artefacts).toHaveLength(1 + 3 * BUILT.length);
    for (const name of artefacts) expect([name, digest(join(second, name))]).toEqual([name, digest(join(first, name))]);
  });

  test("SHA256SUMS is right, and of all", () => {
    const checked = execFileSync("sha256sum", ["--check", "SHA256SUMS"], { cwd: first, encoding: "utf8" });
    expect(checked.match(/: OK$/gm)).toHaveLength(1 + 3 * BUILT.length);
    expect(readdirSync(first)).toHaveLength(2 + 3 * BUILT.length);
  });

  test.each(ARCHITECTURES)("the shim for %s is that architecture's, and static", async (architecture) => {
    const { program } = await buildShim(architecture);
    expect(elfOf(program)).toEqual({ machine: MACHINES[architecture], static: true });
  });

  test.each(BUILT)("the Node for %s is that architecture's", (architecture) => {
    const member = ["-xzOf", join(first, artefact(`${architecture}.tar.gz`)), "--wildcards", "*/lib/swarm/bin/node"];
    const elf = execFileSync("tar", member, { maxBuffer: 1 << 28 });
    expect(elfOf(elf)).toEqual({ machine: MACHINES[architecture], static: false });
  });

  test.each(BUILT)("%s: everything is there, root's, and nothing that anybody else may write", (architecture) => {
    const tarball = join(first, artefact(`${architecture}.tar.gz`));
    const listing = execFileSync("tar", ["-tvzf", tarball], { encoding: "utf8" }).trim().split("\n");
    const paths = listing.map((line) => line.replace(/.*\d\d:\d\d /, "").replace(/^swarm-[^/]+\//, ""));
    expect(paths).toEqual(
      expect.arrayContaining([
        "usr/local/bin/swarmctl -> ../lib/swarm/cli/swarmctl",
        "usr/local/lib/systemd/system/swarm-manager.service",
        "usr/local/share/man/man1/swarmctl-service-create.1.gz",
        "usr/local/share/man/man1/swarmctl.1.gz",
        "usr/local/share/man/man8/swarm-agent.8.gz",
        "usr/local/share/man/man8/swarm-manager.8.gz",
        "usr/local/share/bash-completion/completions/swarmctl",
        "usr/local/share/zsh/site-functions/_swarmctl",
        "usr/local/share/fish/vendor_completions.d/swarmctl.fish",
        "usr/local/share/doc/swarm/copyright",
        "usr/local/share/doc/swarm/licences/swarm",
        "usr/local/share/doc/swarm/licences/etcd3",
        "usr/local/share/doc/swarm/sbom.cdx.json",
        "etc/sysusers.d/swarm.conf",
        "etc/tmpfiles.d/swarm.conf",
        "etc/default/swarm-agent",
      ]),
    );
    const usual = /^([d-]rwxr-xr-x|-rw-r--r--|lrwxrwxrwx) root\/root /;
    expect(listing.filter((line) => !usual.test(line))).toEqual([]);
  });

  test("no shell script has what shellcheck warns of", () => {
    const argv = ["ls-files", "--cached", "--others", "--exclude-standard", "deploy"];
    const files = execFileSync("git", argv, { cwd: ROOT, encoding: "utf8" }).split("\n");
    // setup.sh is bash's and sourced by others, start.sh needs their variables.
    const own = files.filter((path) => path.endsWith(".sh") && !/deploy\/(setup|start)\.sh$|examples\//.test(path));
    expect(own.length).toBeGreaterThan(4);
    expect(execFileSync("shellcheck", ["--shell=sh", ...own], { cwd: ROOT, encoding: "utf8" })).toBe("");
  });
});

installed("the Debian package", () => {
  let root: SystemRoot;
  let before: string;
  /** Where an installation leaves anything. */
  const traces = () =>
    root.shell(
      "find /usr /etc /var /run -xdev -name '*swarm*' ! -path '/run/credentials/*' ! -path '/var/cache/man/*' | sort",
    );

  beforeAll(async () => {
    root = await SystemRoot.start();
    before = await traces();
    cpSync(join(first, artefact(`${NATIVE}.deb`)), join(root.share, "swarm.deb"));
    writeDemoImage(root.share, "1");
  }, 60_000);
  afterAll(() => root?.[Symbol.asyncDispose]());

  test("dpkg installs it, and one command makes a cluster of the host", async () => {
    await root.shell("dpkg -i /mnt/share/swarm.deb");
    await initCluster(root);
    expect(await root.shell("systemctl is-enabled swarm-manager swarm-agent")).toBe("enabled\nenabled\n");
    expect(await root.shell("swarmctl version --format '{{.Server.Version}}'")).toBe(`${projectVersion()}\n`);
    expect(await root.shell("journalctl -q -u swarm-manager")).toContain("manager ready");
    // A bundle that was compiled where it is installed.
    expect(await root.shell("ls /usr/lib/swarm/deploy/out/*.code | wc -l")).toBe("3\n");
  });

  test("the manager has no privilege, and its unit says so", async () => {
    const status = await root.shell(`cat /proc/${await mainPid(root, "swarm-manager")}/status`);
    expect(status).toMatch(/^CapBnd:\s+0+$/m);
    expect(status).toMatch(/^NoNewPrivs:\s+1$/m);
    expect(status).toMatch(/^Seccomp:\s+2$/m);
    expect(status).not.toMatch(/^Uid:\s+0\s/m);
    // In tenths: 4.0 of 10 at most.
    await root.shell("systemd-analyze security --threshold=40 --no-pager swarm-manager.service");
    expect(await root.shell("systemd-analyze verify swarm-manager.service swarm-agent.service 2>&1")).toBe("");
    const modes = await root.shell("stat -c '%a %U' /var/lib/swarm/manager /var/lib/swarm/agent /run/swarm");
    expect(modes).toBe("700 swarm\n700 root\n750 swarm\n");
  });

  test("whoever is in the group swarm may use the manager's socket, and nobody else", async () => {
    const info = (groups: string) =>
      root.run("sh", "-c", `setpriv --reuid 4711 --regid 4711 ${groups} --inh-caps=-all swarmctl info`);
    expect((await info("--groups $(getent group swarm | cut -d: -f3)")).stdout).toContain("Managers: 1");
    expect(await info("--clear-groups")).toMatchObject({ code: 1, stderr: expect.stringMatching(/EACCES/) });
    // The agent's is root's.
    expect(await root.shell("stat -c '%a %U' /run/swarm/*.sock")).toBe("600 root\n660 swarm\n");
  });

  test("an upgrade starts both programs again and no container", async () => {
    await root.shell("echo '# mine' >>/etc/default/swarm-agent");
    await root.shell("swarmctl image load -i /mnt/share/demo-web-1.tar");
    await root.shell("swarmctl service create --name web --replicas 2 -p 8080:80 demo/web:1");
    const [processes, agent, tasks] = [
      await containerProcesses(root),
      await mainPid(root, "swarm-agent"),
      await root.shell("swarmctl service ps -q web"),
    ];
    expect(processes.length).toBeGreaterThanOrEqual(2);
    await root.shell("dpkg -i /mnt/share/swarm.deb");
    await managerAnswers(root);
    await nodeIsReady(root);
    expect(await containerProcesses(root)).toEqual(processes);
    expect(await mainPid(root, "swarm-agent")).not.toBe(agent);
    expect(await root.shell("swarmctl service ps -q web")).toBe(tasks);
    expect(await root.shell("curl -s http://127.0.0.1:8080")).toMatch(/^Hello from web\./);
    expect(await root.shell("cat /etc/default/swarm-agent")).toContain("# mine");
  });

  test("swarmctl check says that this host does, and which ports the manager has", async () => {
    const { Findings } = JSON.parse(await root.shell("swarmctl check --format json"));
    expect(Findings).toContainEqual(
      expect.objectContaining({ Name: "port 2377", Level: "OK", Message: expect.stringMatching(/the manager's/) }),
    );
  });

  test("removing it ends the containers and keeps the state; installing it again goes on from there", async () => {
    const before = await root.shell("swarmctl node ls -q");
    await root.shell("dpkg -r swarm-cluster");
    expect(await containerProcesses(root)).toEqual([]);
    expect(
      await root.shell(
        "find /sys/fs/cgroup -name 'container-*'; ls -d /sys/class/net/swarm0 /usr/lib/swarm 2>/dev/null || true",
      ),
    ).toBe("");
    expect(await root.shell("ls /var/lib/swarm")).toBe("agent\nmanager\n");
    await root.shell("dpkg -i /mnt/share/swarm.deb");
    await managerAnswers(root);
    await nodeIsReady(root);
    expect(await root.shell("swarmctl node ls -q")).toBe(before);
    // The manager learns from the new agent what ended meanwhile.
    await eventually(() => root.shell("curl -sf http://127.0.0.1:8080"), { timeoutMs: 60_000, intervalMs: 200 });
  });

  test("purging it leaves nothing", async () => {
    await root.shell("dpkg -P swarm-cluster");
    expect(await containerProcesses(root)).toEqual([]);
    expect(await root.shell("ls /var/lib/swarm")).toBe("");
    expect(await traces()).toBe(before);
    expect(await root.shell("pgrep -f '^/usr/lib/swarm/' || true")).toBe("");
  });
});

/** Debian's smallest system with what the package depends on and recommends, and curl to look. */
const MINIMAL = "systemd,systemd-sysv,nftables,libstdc++6,etcd-server,iproute2,curl";
if (LONG) {
  installed("the Debian package on a Debian of debootstrap", () => {
    let root: SystemRoot;

    beforeAll(async () => {
      const debian = join(folder, "debian");
      await execute("debootstrap", ["--variant=minbase", `--include=${MINIMAL}`, "bookworm", debian]);
      root = await SystemRoot.start(debian);
      cpSync(join(first, artefact(`${NATIVE}.deb`)), join(root.share, "swarm.deb"));
      writeDemoImage(root.share, "1");
    }, 600_000);
    afterAll(() => root?.[Symbol.asyncDispose]());

    test("nothing else is needed", async () => {
      await root.shell("dpkg -i /mnt/share/swarm.deb");
      await initCluster(root);
      await root.shell("swarmctl image load -i /mnt/share/demo-web-1.tar");
      await root.shell("swarmctl service create --name web -p 8080:80 demo/web:1");
      expect(await root.shell("curl -s http://127.0.0.1:8080")).toMatch(/^Hello from web\./);
      expect(await root.shell("dpkg --audit")).toBe("");
      await root.shell("dpkg -P swarm-cluster");
      expect(await root.shell("ls -A /var/lib/swarm")).toBe("");
    });
  });
}

installed("install.sh", () => {
  let root: SystemRoot;
  const install = (...args: readonly string[]) => root.run("sh", "/mnt/share/install.sh", ...args);
  const tarball = () => artefact(`${NATIVE}.tar.gz`);
  beforeAll(async () => {
    root = await SystemRoot.start();
    for (const name of ["install.sh", "SHA256SUMS", tarball()]) cpSync(join(first, name), join(root.share, name));
    writeDemoImage(root.share, "1");
    // Programs whose answers a test may set.
    await root.shell("mkdir /fake");
  }, 60_000);
  afterAll(() => root?.[Symbol.asyncDispose]());

  test.each([
    ["another processor", "printf '#!/bin/sh\\necho riscv64\\n' >/fake/uname", /this is riscv64/],
    [
      "an old kernel",
      "printf '#!/bin/sh\\n[ $1 = -m ] && echo x86_64 || echo 5.10.0-30-amd64\\n' >/fake/uname",
      /the kernel is 5\.10\.0-30-amd64: containers need 5\.12/,
    ],
    ["musl", "printf '#!/bin/sh\\nexit 1\\n' >/fake/getconf", /no glibc \(it may have musl\)/],
    ["an old glibc", "printf '#!/bin/sh\\necho glibc 2.17\\n' >/fake/getconf", /glibc 2\.17 is older than 2\.28/],
    ["not root", "printf '#!/bin/sh\\necho 1000\\n' >/fake/id", /must run as root/],
  ])("refuses %s", async (_, fake, reason) => {
    const { stderr, code } = await root.run(
      "sh",
      "-c",
      `${fake}; chmod 755 /fake/*; PATH=/fake:$PATH sh /mnt/share/install.sh; code=$?; rm /fake/*; exit $code`,
    );
    expect(stderr).toMatch(reason);
    expect(code).toBe(1);
    expect(await root.shell("ls /usr/local/lib /usr/local/bin")).not.toContain("swarm");
  });

  test.each([
    ["another distribution", "ID=arch\\n", /this is arch: Debian, Ubuntu, Fedora/],
    ["Alpine", "ID=alpine\\nVERSION_ID=3.20\\n", /this is alpine/],
  ])("refuses %s", async (_, text, reason) => {
    const { stderr, code } = await root.run(
      "sh",
      "-c",
      `printf '${text}' >/tmp/os-release; mount --bind /tmp/os-release /etc/os-release; sh /mnt/share/install.sh; code=$?; umount /etc/os-release; exit $code`,
    );
    expect([code, stderr]).toEqual([1, expect.stringMatching(reason)]);
  });

  test.each([
    ["systemd", "/run/systemd", /systemd does not run this host/],
    ["cgroups", "/sys/fs/cgroup", /no cgroups below|the cgroup controller memory is missing/],
  ])("refuses a host without %s", async (_, hidden, reason) => {
    // What is mounted below goes, too, for whoever reads the list of mounts.
    const script = `awk '$2 ~ "^${hidden}" { print $2 }' /proc/mounts | sort -r | xargs -r umount; mount -t tmpfs tmpfs ${hidden}; sh /mnt/share/install.sh`;
    const { stderr, code } = await root.run("unshare", "--mount", "sh", "-c", script);
    expect([code, stderr]).toEqual([1, expect.stringMatching(reason)]);
  });

  test("refuses a tarball that is not the one of SHA256SUMS, and unknown words", async () => {
    const damaged = await root.run(
      "sh",
      "-c",
      `mkdir -p /tmp/bad && cd /tmp/bad && cp /mnt/share/* . && echo x >>${tarball()} && sh install.sh`,
    );
    expect(damaged).toMatchObject({ code: 1, stderr: expect.stringMatching(/is not what SHA256SUMS says/) });
    expect(await install("--frob")).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/unknown argument --frob/),
    });
    expect(await install("--version", "9.9")).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/names no swarm-9\.9/),
    });
    expect(await root.shell("ls /usr/local/lib")).not.toContain("swarm");
  });

  test("installs, here on a Fedora with SELinux, says what it did, and does it once", async () => {
    const { stdout, stderr, code } = await onFedora(root, "sh /mnt/share/install.sh");
    await expectLabels(root, await root.shell("cat /tmp/selinux"));
    expect([code, stderr]).toEqual([0, expect.not.stringContaining("error")]);
    expect(stdout).toContain(`installed ${tarball().replace(".tar.gz", "")} in /usr/local\n`);
    expect(stdout).toContain("swarm-manager.service is enabled and active\n");
    await initCluster(root);
    await root.shell("swarmctl image load -i /mnt/share/demo-web-1.tar");
    await root.shell("swarmctl service create --name web -p 8080:80 demo/web:1");
    const [processes, manager] = [await containerProcesses(root), await mainPid(root, "swarm-manager")];
    const again = await install();
    expect(again.stdout).toMatch(/^swarm-.* is installed already\n/);
    expect(await mainPid(root, "swarm-manager")).toBe(manager);
    expect(await containerProcesses(root)).toEqual(processes);
    expect(await root.shell("systemd-analyze verify swarm-manager.service swarm-agent.service 2>&1")).toBe("");
  });

  test("upgrades under a running container, takes away what the new version has not, and keeps options", async () => {
    const processes = await containerProcesses(root);
    const before = await root.shell("cat /etc/default/swarm-agent");
    makeNewerRelease(root.share, tarball());
    const { stdout, code } = await install("--from", "/mnt/share/newer/", "--version", "99.0.0");
    expect([code, stdout]).toEqual([
      0,
      expect.stringMatching(/kept \/etc\/default\/swarm-agent\n[\s\S]*installed swarm-99\.0\.0/),
    ]);
    await managerAnswers(root);
    await nodeIsReady(root);
    expect(await root.shell("swarmctl version --format '{{.Server.Version}}'")).toBe("99.0.0\n");
    await eventually(async () =>
      expect(await root.shell("swarmctl node ls --format '{{.EngineVersion}}'")).toBe("99.0.0\n"),
    );
    expect(await containerProcesses(root)).toEqual(processes);
    expect(await root.shell("cat /etc/default/swarm-agent")).toBe(before);
    expect(await root.shell("ls /usr/local/share/man/man8")).toBe("swarm-agent.8.gz\n");
  });

  test("does not mix with the package", async () => {
    const { stderr, code } = await root.run(
      "sh",
      "-c",
      "mkdir /usr/lib/swarm; sh /mnt/share/install.sh; code=$?; rmdir /usr/lib/swarm; exit $code",
    );
    expect([code, stderr]).toEqual([1, expect.stringMatching(/the package swarm-cluster is installed/)]);
  });

  test("removes the programs and the containers, then the state", async () => {
    expect((await install("--remove")).stdout).toContain("state stays in /var/lib/swarm");
    expect(await containerProcesses(root)).toEqual([]);
    expect(await root.shell("find /usr/local -name '*swarm*'; ls /var/lib/swarm")).toBe("agent\nmanager\n");
    const purged = await install("--purge");
    expect(purged.stdout).toMatch(/^nothing is installed in \/usr\/local\n[\s\S]*removed this host's state/);
    expect(await root.shell("ls -A /var/lib/swarm; ls /etc/default | grep swarm || true")).toBe("");
  });
});

installed("Ansible and cloud-init", () => {
  let manager: SystemRoot;
  let worker: SystemRoot;

  beforeAll(async () => {
    [manager, worker] = await Promise.all([SystemRoot.start(), SystemRoot.start()]);
    manager.connect(worker, "192.0.2.2");
    cpSync(first, join(manager.share, "release"), { recursive: true });
    cpSync(join(ROOT, "deploy/ansible"), join(manager.share, "ansible"), { recursive: true });
  }, 60_000);
  afterAll(async () => {
    await worker?.[Symbol.asyncDispose]();
    await manager?.[Symbol.asyncDispose]();
  });

  /** On the host itself, whose packages are there. */
  async function play(): Promise<string> {
    const variables = {
      swarm_release: "/mnt/share/release",
      swarm_packages: [],
      swarm_manager_packages: [],
      swarm_agent_options: ["SWARM_AGENT_LABEL=disk=ssd"],
      ansible_connection: "local",
      ansible_python_interpreter: "/usr/bin/python3",
    };
    writeFileSync(join(manager.share, "variables.json"), JSON.stringify(variables));
    const inventory = { swarm_managers: { hosts: { m1: { ansible_host: "192.0.2.1" } } } };
    writeFileSync(join(manager.share, "inventory.json"), JSON.stringify(inventory));
    const options = "-i /mnt/share/inventory.json -e @/mnt/share/variables.json";
    return await manager.shell(`ansible-playbook ${options} /mnt/share/ansible/site.yml`);
  }

  test("the playbook's syntax is right for its example of an inventory", () => {
    const argv = ["--syntax-check", "-i", "deploy/ansible/inventory.example.yml", "deploy/ansible/site.yml"];
    const env = { ...process.env, LC_ALL: "C.UTF-8" };
    expect(execFileSync("ansible-playbook", argv, { cwd: ROOT, encoding: "utf8", env })).toContain("playbook: ");
  });

  test("the playbook makes a cluster, and changes nothing when it is played again", async () => {
    expect(await play()).toMatch(/^m1 .*changed=5 .*failed=0/m);
    await nodeIsReady(manager);
    expect(
      await manager.shell("swarmctl node inspect $(swarmctl node ls -q) --format '{{.Description.Engine.Labels}}'"),
    ).toContain("disk");
    expect(await play()).toMatch(/^m1 .*changed=0 .*failed=0/m);
  });

  test("a host joins at its first boot, by a token that is in no argument, and does so once", async () => {
    await manager.shell("busybox httpd -p 8000 -h /mnt/share/release");
    const token = await manager.shell("swarmctl swarm join-token -q worker");
    const { write_files: files, runcmd } = parse(
      readFileSync(join(ROOT, "deploy/cloud-init/user-data.yaml"), "utf8")
        .replace(/RELEASE=.*/, "RELEASE=http://192.0.2.1:8000")
        .replace(/SUMS_SHA256=0+/, `SUMS_SHA256=${digest(join(first, "SHA256SUMS"))}`)
        .replace(/MANAGER=.*/, "MANAGER=192.0.2.1:2377")
        .replace(/SWMTKN-1-.*/, token.trim()),
    );
    await writeFiles(worker, files);
    expect(runcmd).toEqual([["sh", "/run/swarm-join/join"]]);
    const joined = await worker.shell("sh /run/swarm-join/join");
    expect(joined).toContain("This node joined a swarm as a worker.");
    await eventually(async () =>
      expect(await manager.shell("swarmctl node ls --format '{{.Status}}'")).toBe("Ready\nReady\n"),
    );
    await writeFiles(worker, files);
    expect(await worker.shell("sh /run/swarm-join/join")).not.toContain("joined");
    expect(await worker.shell("ls /run/swarm-join")).not.toContain("token");
  });

  test("whoever serves other files gets nobody to install them", async () => {
    const { code, stderr } = await worker.run(
      "sh",
      "-c",
      `mkdir -p /tmp/other; cd /tmp/other; curl -sO http://192.0.2.1:8000/install.sh -O http://192.0.2.1:8000/SHA256SUMS; sh install.sh --sums-sha256 ${"0".repeat(64)}`,
    );
    expect([code, stderr]).toEqual([1, expect.stringMatching(/SHA256SUMS is not what --sums-sha256 says/)]);
  });
});

/** Another version, less one page of the manual. */
function makeNewerRelease(share: string, tarball: string): void {
  const work = mkdtempSync(join(folder, "newer-"));
  execFileSync("tar", ["-xzf", join(share, tarball), "-C", work, "--strip-components=1"]);
  const manifest = join(work, "usr/local/lib/swarm/package.json");
  writeFileSync(manifest, readFileSync(manifest, "utf8").replace(`"${projectVersion()}"`, '"99.0.0"'));
  rmSync(join(work, "usr/local/share/man/man8/swarm-manager.8.gz"));
  const name = `swarm-99.0.0-linux-${NATIVE}`;
  mkdirSync(join(share, "newer"));
  const path = join(share, "newer", `${name}.tar.gz`);
  execFileSync("tar", [
    "-c",
    "--use-compress-program=gzip -1",
    "-f",
    path,
    "-C",
    work,
    `--transform=s,^\\.,${name},S`,
    ".",
  ]);
  writeFileSync(join(share, "newer/SHA256SUMS"), `${digest(path)}  ${name}.tar.gz\n`);
}
