/** Debian's packages, unpacked and not installed: for the virtual machine's root. Each is downloaded once per version. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

/** Runs a program to its end and returns what it said. */
export function execute(program: string, args: readonly string[], cwd = "/", env = process.env): string {
  return execFileSync(program, args, {
    encoding: "utf8",
    cwd,
    env,
    maxBuffer: 64 * 1024 * 1024,
    stdio: ["ignore", "pipe", "pipe"],
  });
}

/** The newest version in Debian's lists. */
function candidate(name: string): string {
  const version = /^Version: (\S+)/m.exec(execute("apt-cache", ["show", "--no-all-versions", name]))?.[1];
  if (version === undefined) throw new Error(`no ${name} in Debian's lists: run apt-get update`);
  return version;
}

/** The directory that holds the package's files. `finish` adds to it, once. */
export function unpackPackage(name: string, finish: (directory: string) => void = () => {}): string {
  const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "swarm-test");
  const directory = join(cache, `${name}_${candidate(name).replaceAll(":", "%3a")}`);
  if (existsSync(directory)) return directory;
  const made = `${directory}.new-${process.pid}`;
  rmSync(made, { recursive: true, force: true });
  mkdirSync(join(made, "archive"), { recursive: true });
  execute("apt-get", ["download", "-q", "-o", "APT::Sandbox::User=root", name], join(made, "archive"));
  execute("sh", ["-c", "dpkg -x archive/*.deb ."], made);
  rmSync(join(made, "archive"), { recursive: true });
  finish(made);
  renameSync(made, directory);
  return directory;
}
