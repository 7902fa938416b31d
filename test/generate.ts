/** Makes `proto/gen` from `proto/swarm` anew; CI does the same and compares. */
import { execFileSync } from "node:child_process";

const root = new URL("..", import.meta.url).pathname;
execFileSync(`${root}node_modules/.bin/buf`, ["generate", "--clean"], { cwd: `${root}proto`, stdio: "inherit" });
