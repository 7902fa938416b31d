/**
 * Goal: each fact of a host leads to the right word, and whatever is wrong says how to mend it. Method: a table of one change
 * each to a host on which all is well; generated facts never make `judge` fail.
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import { type HostFacts, TRIALS, type Trial, type TrialFacts, type TrialResult } from "./facts.ts";
import { type Finding, isFit, printFindings } from "./findings.ts";
import { judge } from "./judge.ts";

const GIB = 1024 ** 3;

function trials(changes: Partial<Record<Trial, TrialResult>> = {}): TrialFacts {
  const works = Object.fromEntries(TRIALS.map((trial) => [trial, { type: "works" }])) as Record<Trial, TrialResult>;
  return { type: "tried", results: { ...works, ...changes } };
}

const fails = (reason: string): TrialResult => ({ type: "fails", reason });

const SOUND: HostFacts = {
  root: true,
  kernel: "6.1.0-28-amd64",
  architecture: "x64",
  mounts: [{ path: "/run", type: "tmpfs", options: [] }],
  unifiedControllers: ["cpuset", "cpu", "io", "memory", "pids"],
  namespaces: ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"],
  seccompActions: ["errno", "allow"],
  trials: trials(),
  processes: new Set(["systemd", "chronyd"]),
  programs: new Set(["nft", "etcd"]),
  ports: [{ port: 2377, type: "free" }],
  disk: { path: "/var/lib", fileSystem: "ext4", freeBytes: 50 * GIB, freeInodes: 3_000_000, inodes: 4_000_000 },
  memoryBytes: 4 * GIB,
  openFilesMax: 1_048_576,
  processesMax: 4_194_304,
  nowMs: Date.UTC(2026, 5, 1),
  timesyncSynchronized: false,
};

const disk = (changes: Partial<HostFacts["disk"]>) => ({ disk: { ...SOUND.disk, ...changes } });
const taken = (commandLine: string, parentCommandLine = "/sbin/init") => ({
  ports: [{ port: 2378, type: "taken", holder: { pid: 77, commandLine, parentCommandLine } } as const],
});
const cgroupV1 = (...controllers: string[]) => ({
  unifiedControllers: undefined,
  mounts: controllers.map((name) => ({ path: `/sys/fs/cgroup/${name}`, type: "cgroup", options: ["rw", name] })),
});

function named(name: string, changes: Partial<HostFacts>): Finding | undefined {
  return judge({ ...SOUND, ...changes }, "manager").find((finding) => finding.name === name);
}

test("a sound host is fit, and nothing is to be mended", () => {
  const findings = judge(SOUND, "manager");
  expect(findings.filter(({ level }) => level !== "OK" && level !== "INFO")).toEqual([]);
  expect(findings.filter(({ mend }) => mend !== undefined)).toEqual([]);
  expect(isFit(findings)).toBe(true);
});

test.each<[string, Finding["level"], RegExp, Partial<HostFacts>]>([
  ["architecture", "FAIL", /ia32: containers need/, { architecture: "ia32" }],
  ["kernel", "FAIL", /5\.11\.0 is older than 5\.12/, { kernel: "5.11.0" }],
  ["kernel", "FAIL", /4\.19/, { kernel: "4.19.0-27-amd64" }],
  ["kernel", "OK", /5\.12/, { kernel: "5.12.0" }],
  ["kernel", "OK", /6\.0-rc1/, { kernel: "6.0-rc1" }],
  ["kernel", "FAIL", /unknown/, { kernel: "unknown" }],
  ["cgroups", "OK", /version 2/, {}],
  ["cgroups", "OK", /version 1/, cgroupV1("memory", "cpu", "pids", "cpuacct", "devices", "freezer")],
  ["cgroups", "FAIL", /no controller devices/, cgroupV1("memory", "cpu", "pids", "cpuacct", "freezer")],
  ["cgroups", "FAIL", /no controller memory/, { unifiedControllers: ["cpu", "pids"] }],
  ["cgroups", "FAIL", /none are mounted/, { unifiedControllers: undefined, mounts: [] }],
  ["namespaces", "FAIL", /of the kind net, pid/, { namespaces: ["cgroup", "ipc", "mnt", "uts"] }],
  [
    "namespaces",
    "FAIL",
    /Operation not permitted/,
    { trials: { type: "no namespaces", reason: "Operation not permitted" } },
  ],
  ["seccomp", "FAIL", /no filters/, { seccompActions: [] }],
  [
    "overlay",
    "FAIL",
    /unknown filesystem type/,
    { trials: trials({ overlay: fails("unknown filesystem type 'overlay'") }) },
  ],
  ["links", "FAIL", /Unknown device type/, { trials: trials({ veth: fails("Unknown device type") }) }],
  ["links", "FAIL", /Unknown device type/, { trials: trials({ bridge: fails("Unknown device type") }) }],
  ["links", "INFO", /ip is not installed/, { trials: trials({ veth: { type: "untried", program: "ip" } }) }],
  ["nftables", "FAIL", /not installed/, { programs: new Set(["etcd"]) }],
  ["nftables", "FAIL", /No such file/, { trials: trials({ nat: fails("No such file or directory") }) }],
  ["secrets", "WARN", /neither \/run nor/, { mounts: [{ path: "/run", type: "ext4", options: [] }] }],
  ["disk", "FAIL", /0\.5|512MiB free/, disk({ freeBytes: GIB / 2 })],
  ["disk", "WARN", /5GiB free/, disk({ freeBytes: 5 * GIB })],
  ["disk", "WARN", /99 inodes/, disk({ freeInodes: 99 })],
  ["disk", "OK", /btrfs/, disk({ fileSystem: "btrfs", freeInodes: 0, inodes: 0 })],
  ["disk", "FAIL", /nfs/, disk({ fileSystem: "nfs" })],
  ["disk", "WARN", /not known to work/, disk({ fileSystem: "ecryptfs" })],
  ["memory", "WARN", /512MiB/, { memoryBytes: GIB / 2 }],
  ["memory", "FAIL", /256MiB/, { memoryBytes: GIB / 4 }],
  ["open files", "WARN", /^1024 /, { openFilesMax: 1024 }],
  ["processes", "WARN", /^4096 /, { processesMax: 4096 }],
  ["clock", "FAIL", /1970-01-01/, { nowMs: 5_000 }],
  ["clock", "OK", /systemd-timesyncd/, { timesyncSynchronized: true }],
  ["clock", "WARN", /no answer yet/, { processes: new Set(["systemd-timesyn"]) }],
  ["clock", "WARN", /nothing known/, { processes: new Set() }],
  ["etcd", "WARN", /not installed/, { programs: new Set(["nft"]) }],
  ["port 2377", "OK", /free/, {}],
  ["port 2378", "FAIL", /etcd \(pid 77\)/, taken("/usr/bin/etcd --name default")],
  [
    "port 2378",
    "OK",
    /the manager's/,
    taken("/usr/bin/etcd --name m", "node /usr/lib/swarm/deploy/out/swarm-manager.cjs"),
  ],
  ["port 2377", "WARN", /taken/, { ports: [{ port: 2377, type: "taken", holder: undefined }] }],
  ["firewall", "INFO", /firewalld/, { processes: new Set(["firewalld"]) }],
  ["vxlan", "INFO", /not there/, { trials: trials({ vxlan: fails("Unknown device type") }) }],
  ["privileges", "WARN", /not root/, { root: false, trials: { type: "not root" } }],
])("%s: %s %s", (name, level, message, changes) => {
  const finding = named(name, changes);
  expect(finding).toMatchObject({ level, message: expect.stringMatching(message) });
  // What is wrong can be mended, but for the processor.
  if (level === "WARN" || level === "FAIL") expect(finding?.mend === undefined).toBe(name === "architecture");
});

test("a worker needs no etcd and none of a manager's ports", () => {
  const bare = { ...SOUND, programs: new Set(["nft"]), ...taken("/usr/sbin/nginx") };
  expect(isFit(judge(bare, "manager"))).toBe(false);
  expect(isFit(judge(bare, "worker"))).toBe(true);
  expect(judge(bare, "worker").some(({ name }) => name === "etcd" || name.startsWith("port"))).toBe(false);
});

test("any facts get an answer", () => {
  const anyFacts = fc.record({
    kernel: fc.string(),
    namespaces: fc.array(fc.string()),
    memoryBytes: fc.nat(),
    openFilesMax: fc.nat(),
    root: fc.boolean(),
    processes: fc.array(fc.string()).map((names) => new Set(names)),
  });
  fc.assert(
    fc.property(anyFacts, (changes) => {
      const findings = judge({ ...SOUND, ...changes }, "manager");
      expect(printFindings(findings).trimEnd().split("\n").length).toBeGreaterThan(findings.length);
    }),
  );
});

test("people read lines with the remedy below, and a sum", () => {
  const findings: Finding[] = [
    { name: "kernel", level: "OK", message: "6.1.0" },
    { name: "port 2377", level: "FAIL", message: "nginx (pid 7) has it", mend: "kill 7" },
    { name: "clock", level: "WARN", message: "nothing keeps it" },
  ];
  expect(printFindings(findings)).toMatchInlineSnapshot(`
    "OK    kernel     6.1.0
    FAIL  port 2377  nginx (pid 7) has it
                     mend: kill 7
    WARN  clock      nothing keeps it
    this host will not do: 1 to mend, 1 warning
    "
  `);
});
