/** `npm run check`: types, lint, format, dead exports, protos and generated code, all at once. Exits 1 if one fails. */
import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const ROOT = new URL("..", import.meta.url).pathname;
const BIN = join(ROOT, "node_modules/.bin");

interface Check {
  readonly name: string;
  readonly command: readonly string[];
  readonly cwd?: string;
}

const CHECKS: readonly Check[] = [
  { name: "types", command: ["tsc", "--noEmit", "-p", ROOT] },
  { name: "format and lint", command: ["biome", "ci", "--error-on-warnings", ROOT] },
  {
    name: "promises",
    command: ["oxlint", "--type-aware", "--quiet", "common", "manager", "agent", "cli", "deploy", "test"],
  },
  { name: "dead exports", command: ["knip"] },
  { name: "protos", command: ["buf", "lint"], cwd: join(ROOT, "proto") },
];

interface Outcome {
  readonly name: string;
  readonly ok: boolean;
  readonly output: string;
}

function run({ name, command, cwd }: Check): Promise<Outcome> {
  const [program = "", ...args] = command;
  return new Promise((resolve) => {
    const child = spawn(program.startsWith("/") ? program : join(BIN, program), args, {
      cwd: cwd ?? ROOT,
      env: { ...process.env, PATH: `${BIN}:${process.env.PATH}` },
    });
    let output = "";
    child.stdout.on("data", (data) => (output += data));
    child.stderr.on("data", (data) => (output += data));
    child.on("error", (error) => resolve({ name, ok: false, output: error.message }));
    child.on("close", (code) => resolve({ name, ok: code === 0, output }));
  });
}

/** Generates the protos elsewhere and compares with what is committed. */
async function checkGenerated(): Promise<Outcome> {
  const directory = mkdtempSync(join(tmpdir(), "swarm-gen-"));
  try {
    cpSync(join(ROOT, "proto/gen"), join(directory, "committed"), { recursive: true });
    const generated = await run({
      name: "generated code",
      command: ["buf", "generate", "--clean", "-o", directory],
      cwd: join(ROOT, "proto"),
    });
    if (!generated.ok) return generated;
    return await run({
      name: "generated code",
      command: ["/usr/bin/diff", "-r", join(directory, "gen"), join(directory, "committed")],
    });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const outcomes = await Promise.all([...CHECKS.map(run), checkGenerated()]);
for (const { name, ok, output } of outcomes) {
  process.stdout.write(`${ok ? "ok    " : "FAILED"} ${name}\n`);
  if (!ok) process.stdout.write(`${output.trimEnd()}\n`);
}
process.exitCode = outcomes.every(({ ok }) => ok) ? 0 : 1;
