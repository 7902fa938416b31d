/** What a command for a task's container may look like. */

import type { ExecStart } from "../../proto/gen/swarm/v1/control_pb.js";
import { invalidFields } from "../base/error.ts";
import { lineProblem, valueProblem } from "./text.ts";
import { quoted } from "./units.ts";
import { Problems } from "./validate-parts.ts";

/** As for a service's own command line: more than the kernel takes in one argument (MAX_ARG_STRLEN, execve(2)) is refused. */
const ARGUMENT_LENGTH_MAX = 128 * 1024;
const ARGUMENTS_MAX = 4096;
/** All words and variables together: what the kernel takes by default is 2 MiB (ARG_MAX), and a request is at most 4. */
const TOTAL_LENGTH_MAX = 1024 * 1024;
const PATH_LENGTH_MAX = 4095;
const NAME_LENGTH_MAX = 256;
/** What the kernel keeps of a window's size (ioctl_tty(2)). */
const WINDOW_MAX = 0xffff;

/** Throws `invalid_argument` that names every field that is wrong. */
export function checkExec(start: ExecStart): void {
  const problems = new Problems();
  const { args, env, user, dir, tty, stdin, size, detach } = start;
  if (!args[0]) problems.add("args", "a command is needed");
  for (const [field, values] of Object.entries({ args, env })) {
    if (values.length > ARGUMENTS_MAX) problems.add(field, `at most ${ARGUMENTS_MAX} words`);
    values.forEach((value, index) => {
      problems.text(`${field}[${index}]`, valueProblem(value, ARGUMENT_LENGTH_MAX));
    });
  }
  for (const variable of env) {
    if (/^=|^$/.test(variable)) problems.add("env", `invalid environment variable: ${quoted(variable)}`);
  }
  const total = [...args, ...env].reduce((sum, text) => sum + text.length + 1, 0);
  if (total > TOTAL_LENGTH_MAX) problems.add("args", `command and environment are over ${TOTAL_LENGTH_MAX} characters`);
  problems.text("user", lineProblem(user, NAME_LENGTH_MAX));
  problems.text("dir", lineProblem(dir, PATH_LENGTH_MAX));
  if (dir !== "" && !dir.startsWith("/")) problems.add("dir", `${quoted(dir)} must be an absolute path`);
  if (size && (size.rows > WINDOW_MAX || size.columns > WINDOW_MAX)) problems.add("size", `at most ${WINDOW_MAX}`);
  if (detach && (stdin || tty)) problems.add("detach", "a detached command has neither a terminal nor input");
  if (problems.list.length > 0) throw invalidFields(problems.list);
}
