/** Makes once what a node makes all day: a mount, links, rules. All of it ends with the namespaces that it is made in. */
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { TRIALS, type Trial, type TrialFacts, type TrialResult } from "./facts.ts";

/** Loading a module takes a moment, all of them a second or two. */
const TRIAL_TIMEOUT_MS = 20_000;
const OUTPUT_BYTES_MAX = 64 * 1024;
/** A reason in full would be lines of an nft script. */
const REASON_LENGTH_MAX = 160;

/** Every feature of the rules that an agent loads. */
const RULES = `table ip swarm_check {
  chain target { meta l4proto tcp dnat ip to numgen inc mod 2 map { 0 : 10.0.0.2 . 80, 1 : 10.0.0.3 . 80 }; }
  map published { type inet_proto . inet_service : verdict; elements = { tcp . 8080 : jump target }; }
  chain entrance { type filter hook prerouting priority raw; ct original zone set @ll,80,16; }
  chain guard {
    type filter hook prerouting priority mangle; ct mark set ether saddr map { 02:00:00:00:00:01 : 1 };
    ip daddr 10.0.0.1 meta l4proto tcp reject with tcp reset;
  }
  chain prerouting { type nat hook prerouting priority dstnat; fib daddr type local meta l4proto . th dport vmap @published; }
  chain postrouting { type nat hook postrouting priority srcnat; ip saddr 10.0.0.0/8 ct status dnat masquerade; }
}`;

/** One line for each trial: its name, "works", "fails" or "untried", and the reason or the missing program. */
const SCRIPT = `
attempt() {
  name=$1 program=$2; shift 2
  if ! command -v "$program" >/dev/null; then echo "$name untried $program"
  elif reason=$("$@" 2>&1 </dev/null); then echo "$name works"
  else echo "$name fails $(printf %s "$reason" | head -n 1)"; fi
}
layers() { mount -t overlay overlay -o "lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work" "$1/merged" && : >"$1/merged/file"; }
rules() { printf %s "$RULES" | nft -f -; }
attempt overlay mount layers "$DIRECTORY"
attempt veth ip ip link add check0 type veth peer name check1
attempt bridge ip ip link add check2 type bridge
attempt vxlan ip ip link add check3 type vxlan id 1 dstport 4789
attempt wireguard ip ip link add check4 type wireguard
attempt nat nft rules
`;

/** Tries everything. `directory` is on the file system that is to hold the layers; what it makes there it removes again. */
export async function tryOut(directory: string, signal: AbortSignal): Promise<TrialFacts> {
  const scratch = mkdtempSync(join(directory, ".swarm-check-"));
  try {
    for (const name of ["lower", "upper", "work", "merged"]) mkdirSync(join(scratch, name));
    const { stdout, problem } = await runScript(scratch, signal);
    const results = readResults(stdout);
    if (results.size === 0) return { type: "no namespaces", reason: oneLine(problem ?? "unshare said nothing") };
    const missing: TrialResult = { type: "fails", reason: oneLine(problem ?? "it did not end") };
    const all = TRIALS.map((trial) => [trial, results.get(trial) ?? missing] as const);
    return { type: "tried", results: Object.fromEntries(all) as Record<Trial, TrialResult> };
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

interface ScriptOutcome {
  readonly stdout: string;
  readonly problem: string | undefined;
}

function runScript(directory: string, signal: AbortSignal): Promise<ScriptOutcome> {
  const namespaces = ["--mount", "--net", "--uts", "--ipc", "--pid", "--cgroup", "--fork", "--kill-child"];
  const environment = { ...process.env, LC_ALL: "C", DIRECTORY: directory, RULES };
  const options = { signal, timeout: TRIAL_TIMEOUT_MS, maxBuffer: OUTPUT_BYTES_MAX, env: environment };
  return new Promise((resolve) => {
    execFile("unshare", [...namespaces, "sh", "-c", SCRIPT], options, (error, stdout, stderr) => {
      resolve({ stdout, problem: error === null ? undefined : stderr.trim() || error.message });
    });
  });
}

/** What the script printed; other lines are no result. */
export function readResults(output: string): ReadonlyMap<Trial, TrialResult> {
  const results = new Map<Trial, TrialResult>();
  for (const line of output.split("\n")) {
    const [, name, verdict, rest = ""] = /^(\w+) (works|fails|untried) ?(.*)$/.exec(line) ?? [];
    const trial = TRIALS.find((each) => each === name);
    if (trial === undefined) continue;
    if (verdict === "works") results.set(trial, { type: "works" });
    else if (verdict === "untried") results.set(trial, { type: "untried", program: rest });
    else results.set(trial, { type: "fails", reason: oneLine(rest) });
  }
  return results;
}

function oneLine(text: string): string {
  const line =
    text
      .split("\n")
      .find((each) => each.trim() !== "")
      ?.trim() ?? "no reason given";
  return line.slice(0, REASON_LENGTH_MAX);
}
