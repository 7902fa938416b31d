/** The corpus of stack files, and what `docker stack config` makes of each: recorded beside it, and live where docker is. */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const TESTDATA = new URL("testdata/", import.meta.url).pathname;
/** Where the files of the corpus lie. */
export const CASES = join(TESTDATA, "cases");
/** The version whose answers are recorded. */
export const DOCKER_VERSION = "28.2.2";
/** Stands in recordings for the folder of the corpus. */
const FOLDER = "/CASES";
/** And for the one above it, where a case leads out of its folder. */
const FOLDER_ABOVE = "/TESTDATA/";

/** The caller's variables for every file. */
export const ENVIRONMENT: Readonly<Record<string, string>> = {
  HOME: "/home/user",
  TAG: "1.2",
  EMPTY: "",
  REPLICAS: "3",
  PORT: "256",
  RATIO: "0.25",
  ON: "true",
  OFF: "off",
  YES: "yes",
};

/** Names of the cases; "x.2.yml" is merged into "x.yml". */
export function caseNames(): readonly string[] {
  const files = readdirSync(CASES).filter((name) => name.endsWith(".yml") && !name.endsWith(".2.yml"));
  return files.map((name) => name.slice(0, -".yml".length)).toSorted();
}

/** The files of a case. */
export function caseFiles(name: string): readonly string[] {
  const second = `${name}.2.yml`;
  return [`${name}.yml`, ...(readdirSync(CASES).includes(second) ? [second] : [])].map((file) => join(CASES, file));
}

/** Where Docker's answer to a case is kept. */
export function recordingPath(name: string): string {
  return join(TESTDATA, "docker", `${name}.yml`);
}

/** Docker's answer to a case, as recorded, with the folder put in. */
export function recorded(name: string): string {
  return readFileSync(recordingPath(name), "utf8").replaceAll(FOLDER, CASES).replaceAll(FOLDER_ABOVE, TESTDATA);
}

/** What a recording keeps of an answer. */
export function recordable(answer: string): string {
  return answer.replaceAll(CASES, FOLDER).replaceAll(TESTDATA, FOLDER_ABOVE);
}

/** The version of the docker client, or undefined where there is none. Needs no daemon. */
export function dockerVersion(): string | undefined {
  try {
    const text = execFileSync("docker", ["--version"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    return /(\d+\.\d+\.\d+)/.exec(text)?.[1];
  } catch {
    return undefined;
  }
}

/** Docker's answer, live; its complaint where it refuses. */
export function askDocker(name: string): string {
  const files = caseFiles(name).flatMap((file) => ["-c", file]);
  const env = { PATH: process.env.PATH, ...ENVIRONMENT };
  try {
    return execFileSync("docker", ["stack", "config", ...files], {
      encoding: "utf8",
      env,
      stdio: ["ignore", "pipe", "pipe"],
    });
  } catch (reason) {
    const stderr = reason instanceof Error && "stderr" in reason ? String(reason.stderr) : String(reason);
    return `# refused: ${stderr.trim()}\n`;
  }
}
