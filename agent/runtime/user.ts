/**
 * Which uid, gid and groups a container runs with: Docker's user strings against the image's own /etc/passwd and
 * /etc/group, given as text (the files are untrusted; whoever reads them does so inside the root and stops at
 * `USER_FILE_BYTES_MAX`). Pure.
 *
 * What is all digits is a number from 0 to 2^31-1 and never looked up as a name; what is neither a number nor a name in
 * the file is refused. So no string that was meant for somebody else ends as root (CVE-2024-40635, CVE-2026-30892,
 * CVE-2026-46680).
 */
import type { FieldProblem } from "../../common/base/error.ts";

/** A longer passwd or group file is refused: reading it would only cost memory (CVE-2026-47262). */
export const USER_FILE_BYTES_MAX = 10 * 1024 * 1024;

/** The largest id that no kernel or file system interface reads as negative. */
const ID_MAX = 2 ** 31 - 1;

/** The image's user files; empty text where it has none. */
export interface UserFiles {
  readonly passwd: string;
  readonly group: string;
}

/** Who the container's process is. */
export interface ContainerUser {
  readonly uid: number;
  readonly gid: number;
  /** The primary group too: without it a file's "not this group" permission could be walked around (CVE-2022-36109). */
  readonly additionalGids: readonly number[];
  /** The home directory by passwd, else `/`. */
  readonly home: string;
}

export type ResolvedUser =
  | { readonly kind: "user"; readonly user: ContainerUser }
  | { readonly kind: "invalid"; readonly problems: readonly FieldProblem[] };

interface PasswdEntry {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
}

interface GroupEntry {
  readonly name: string;
  readonly gid: number;
  readonly members: readonly string[];
}

/**
 * Resolves `user[:group]`, each a name or a number; either may be empty (root, and the user's own group). `groups` are
 * the service's additional groups. As in Docker, group memberships by /etc/group count only when no group is named.
 */
export function resolveUser(user: string, groups: readonly string[], files: UserFiles): ResolvedUser {
  const problems: FieldProblem[] = [];
  for (const file of ["passwd", "group"] as const) {
    if (Buffer.byteLength(files[file]) > USER_FILE_BYTES_MAX) {
      problems.push({ field: "user", problem: `/etc/${file} of the image is over ${USER_FILE_BYTES_MAX} bytes` });
    }
  }
  const [userWord = "", groupWord = "", ...rest] = user.split(":");
  if (rest.length > 0) problems.push({ field: "user", problem: `${JSON.stringify(user)} has more than one colon` });
  if (problems.length > 0) return { kind: "invalid", problems };

  const groupFile = parseGroup(files.group);
  const entry = findUser(userWord === "" ? "0" : userWord, parsePasswd(files.passwd), problems);
  const namedGid = groupWord === "" ? undefined : findGroup("user", groupWord, groupFile, problems);
  const extraGids = groups.map((group) => findGroup("groups", group, groupFile, problems));
  if (problems.length > 0 || entry === undefined) return { kind: "invalid", problems };

  const gid = namedGid ?? entry.gid;
  const memberships =
    groupWord === "" && entry.name !== "" ? groupFile.filter((g) => g.members.includes(entry.name)) : [];
  const gids = [gid, ...memberships.map((group) => group.gid), ...extraGids.filter((extra) => extra !== undefined)];
  return {
    kind: "user",
    user: { uid: entry.uid, gid, additionalGids: [...new Set(gids)], home: entry.home === "" ? "/" : entry.home },
  };
}

function findUser(word: string, entries: readonly PasswdEntry[], problems: FieldProblem[]): PasswdEntry | undefined {
  if (isDigits(word)) {
    const uid = parseId(word);
    if (uid === undefined) problems.push({ field: "user", problem: `uid ${word} is not within 0 to ${ID_MAX}` });
    else return entries.find((entry) => entry.uid === uid) ?? { name: "", uid, gid: 0, home: "" };
    return undefined;
  }
  const entry = entries.find(({ name }) => name === word);
  if (entry === undefined)
    problems.push({ field: "user", problem: `no user ${JSON.stringify(word)} in the image's /etc/passwd` });
  return entry;
}

function findGroup(
  field: string,
  word: string,
  entries: readonly GroupEntry[],
  problems: FieldProblem[],
): number | undefined {
  if (isDigits(word)) {
    const gid = parseId(word);
    if (gid === undefined) problems.push({ field, problem: `gid ${word} is not within 0 to ${ID_MAX}` });
    return gid;
  }
  const entry = entries.find(({ name }) => name === word);
  if (entry === undefined)
    problems.push({ field, problem: `no group ${JSON.stringify(word)} in the image's /etc/group` });
  return entry?.gid;
}

function isDigits(word: string): boolean {
  return /^[0-9]+$/.test(word);
}

function parseId(digits: string): number | undefined {
  const id = isDigits(digits) ? Number(digits) : Number.NaN;
  return id <= ID_MAX ? id : undefined;
}

/** Lines `name:password:uid:gid:comment:home:shell` (passwd(5)); a line with a bad id is as if it were not there. */
function parsePasswd(text: string): readonly PasswdEntry[] {
  return text.split("\n").flatMap((line) => {
    const [name = "", , uidText = "", gidText = "", , home = ""] = line.split(":");
    const [uid, gid] = [parseId(uidText), parseId(gidText)];
    return name === "" || uid === undefined || gid === undefined ? [] : [{ name, uid, gid, home: home.trimEnd() }];
  });
}

/** Lines `name:password:gid:member,member` (group(5)). */
function parseGroup(text: string): readonly GroupEntry[] {
  return text.split("\n").flatMap((line) => {
    const [name = "", , gidText = "", members = ""] = line.split(":");
    const gid = parseId(gidText);
    return name === "" || gid === undefined ? [] : [{ name, gid, members: members.trimEnd().split(",") }];
  });
}
