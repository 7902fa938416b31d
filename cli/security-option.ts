/** `--security-opt` and a stack file's `security_opt`: Docker's words (docker run), into the message. */
import type { Parsed } from "../common/model/parsed.ts";

/** SecurityOptions while they are being gathered. */
export interface SecurityInit {
  noNewPrivileges?: boolean;
  seccomp?: string;
  apparmor?: string;
  systemPathsUnconfined?: boolean;
}

/** Writes one option into `security`; returns what is wrong with it. `readFile` gives the text of a seccomp profile. */
export function setSecurityOption(
  security: SecurityInit,
  option: string,
  readFile: (path: string) => Parsed<string>,
): string | undefined {
  const [, key = "", value] = /^([^:=]+)(?:[:=](.*))?$/s.exec(option) ?? [];
  const invalid = `invalid --security-opt: ${JSON.stringify(option)}`;
  switch (key) {
    case "no-new-privileges":
      if (value !== undefined && value !== "true" && value !== "false") return invalid;
      security.noNewPrivileges = value !== "false";
      return undefined;
    case "systempaths":
      if (value !== "unconfined") return invalid;
      security.systemPathsUnconfined = true;
      return undefined;
    case "apparmor":
      security.apparmor = value ?? "";
      return undefined;
    case "seccomp":
      return setSeccomp(security, value ?? "", readFile);
    case "label":
      return "SELinux labels are not supported";
    default:
      return invalid;
  }
}

function setSeccomp(
  security: SecurityInit,
  value: string,
  readFile: (path: string) => Parsed<string>,
): string | undefined {
  if (value === "builtin" || value === "unconfined" || value.startsWith("{")) {
    security.seccomp = value === "builtin" ? "" : value;
    return undefined;
  }
  const profile = readFile(value);
  if (!profile.ok) return `opening seccomp profile ${JSON.stringify(value)} failed: ${profile.problem}`;
  try {
    security.seccomp = JSON.stringify(JSON.parse(profile.value));
  } catch {
    return `compacting json for seccomp profile ${JSON.stringify(value)} failed: not JSON`;
  }
  return undefined;
}
