/** The programs as another version would be: the same sources, bundled as they are installed, under another version's name. */
import { cpSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { bundleProgram } from "../deploy/bundle.ts";
import { PROGRAMS } from "../deploy/programs.ts";

const ROOT = new URL("..", import.meta.url).pathname;

/** Builds them in `directory`, which takes the place of the checkout. */
export async function buildVersion(directory: string, version: string): Promise<string> {
  const out = join(directory, "deploy/out");
  mkdirSync(out, { recursive: true });
  await Promise.all(PROGRAMS.map((program) => bundleProgram(program, out, "away")));
  for (const path of [
    "deploy/start.sh",
    "manager/swarm-manager",
    "agent/swarm-agent",
    "cli/swarmctl",
    "agent/shim/build",
  ]) {
    cpSync(join(ROOT, path), join(directory, path), { recursive: true });
  }
  symlinkSync(join(ROOT, "node_modules"), join(directory, "node_modules"));
  writeFileSync(join(directory, "package.json"), JSON.stringify({ version }));
  return directory;
}
