// Goal: a user string means exactly one user or is refused; nothing becomes root by accident. Method: a table.
import { describe, expect, test } from "vitest";
import { resolveUser, USER_FILE_BYTES_MAX } from "./user.ts";

const FILES = {
  passwd: [
    "root:x:0:0:root:/root:/bin/sh",
    "",
    "# comment",
    "+nis",
    "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin",
    "a:x:1000:1000:A:/home/a:/bin/sh\r",
    "evil:x:4294967296:0::/:/bin/sh",
    "worse:x:-1:0::/:/bin/sh",
    "4294967296:x:0:0:name of digits:/root:/bin/sh",
    "7:x:0:0:another:/root:/bin/sh",
    "homeless:x:1001:1001::",
    "a:x:0:0:second of the name:/root:/bin/sh",
  ].join("\n"),
  group: ["root:x:0:", "b:x:2000:", "wheel:x:10:root,a", "video:x:44:b,a\r", "huge:x:99999999999:a", "9:x:0:"].join(
    "\n",
  ),
};

function resolve(user: string, groups: readonly string[] = [], files = FILES): string {
  const resolved = resolveUser(user, groups, files);
  if (resolved.kind === "invalid")
    return resolved.problems.map(({ field, problem }) => `${field}: ${problem}`).join("; ");
  const { uid, gid, additionalGids, home } = resolved.user;
  return `${uid}:${gid} [${additionalGids.join()}] ${home}`;
}

describe("user strings", () => {
  test.each([
    ["", "0:0 [0,10] /root"],
    ["root", "0:0 [0,10] /root"],
    ["0", "0:0 [0,10] /root"],
    ["1", "1:1 [1] /usr/sbin"],
    ["1:", "1:1 [1] /usr/sbin"],
    [":1", "0:1 [1] /root"],
    ["1:1", "1:1 [1] /usr/sbin"],
    ["0001", "1:1 [1] /usr/sbin"],
    ["12345", "12345:0 [0] /"],
    ["12345:b", "12345:2000 [2000] /"],
    ["a", "1000:1000 [1000,10,44] /home/a"],
    ["a:b", "1000:2000 [2000] /home/a"],
    ["a:", "1000:1000 [1000,10,44] /home/a"],
    ["a:44", "1000:44 [44] /home/a"],
    ["homeless", "1001:1001 [1001] /"],
    ["7", "7:0 [0] /"],
    ["0:9", "0:9 [9] /root"],
    ["2147483647", "2147483647:0 [0] /"],
    ["2147483648", "user: uid 2147483648 is not within 0 to 2147483647"],
    ["4294967295", "user: uid 4294967295 is not within 0 to 2147483647"],
    ["4294967296", "user: uid 4294967296 is not within 0 to 2147483647"],
    ["99999999999999999999999999", "user: uid 99999999999999999999999999 is not within 0 to 2147483647"],
    ["1:4294967296", "user: gid 4294967296 is not within 0 to 2147483647"],
    ["-1", `user: no user "-1" in the image's /etc/passwd`],
    [" 1", `user: no user " 1" in the image's /etc/passwd`],
    ["1 ", `user: no user "1 " in the image's /etc/passwd`],
    ["1\n", `user: no user "1\\n" in the image's /etc/passwd`],
    ["0x0", `user: no user "0x0" in the image's /etc/passwd`],
    ["1e3", `user: no user "1e3" in the image's /etc/passwd`],
    ["evil", `user: no user "evil" in the image's /etc/passwd`],
    ["worse", `user: no user "worse" in the image's /etc/passwd`],
    [
      "nobody:nogroup",
      `user: no user "nobody" in the image's /etc/passwd; user: no group "nogroup" in the image's /etc/group`,
    ],
    ["a:huge", `user: no group "huge" in the image's /etc/group`],
    ["a:b:c", `user: "a:b:c" has more than one colon`],
  ])("%j", (user, expected) => {
    expect(resolve(user)).toBe(expected);
  });

  test("additional groups by name and number", () => {
    expect(resolve("a:b", ["video", "5", "b"])).toBe("1000:2000 [2000,44,5] /home/a");
    expect(resolve("a:b", ["none", "-5", "4294967296"])).toBe(
      `groups: no group "none" in the image's /etc/group; groups: no group "-5" in the image's /etc/group; groups: gid 4294967296 is not within 0 to 2147483647`,
    );
  });

  test("an image without the files, and one with endless files", () => {
    const empty = { passwd: "", group: "" };
    expect(resolve("", [], empty)).toBe("0:0 [0] /");
    expect(resolve("1000:1000", [], empty)).toBe("1000:1000 [1000] /");
    expect(resolve("root", [], empty)).toBe(`user: no user "root" in the image's /etc/passwd`);
    expect(resolve("0", [], { passwd: "", group: "x".repeat(USER_FILE_BYTES_MAX + 1) })).toBe(
      "user: /etc/group of the image is over 10485760 bytes",
    );
  });
});
