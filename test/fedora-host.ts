/** What install.sh meets on a Fedora, where there is none: its name, and SELinux's tools, which write down what they are told. */
import { expect } from "vitest";
import type { RootAnswer, SystemRoot } from "./system-root.ts";

/** Runs a script where the system calls itself a Fedora; SELinux hears what /tmp/selinux says then. Fakes lie in /fake. */
export function onFedora(root: SystemRoot, script: string): Promise<RootAnswer> {
  const tools = ["restorecon", "chcon"].map(
    (tool) => `printf '#!/bin/sh\\necho ${tool} "$@" >>/tmp/selinux\\n' >/fake/${tool}`,
  );
  const steps = [
    "printf 'ID=fedora\\nVERSION_ID=44\\n' >/tmp/os-release && mount --bind /tmp/os-release /etc/os-release",
    ...tools,
    "ln -s /bin/true /fake/selinuxenabled && chmod 755 /fake/*",
    `PATH=/fake:$PATH ${script}; code=$?`,
    "umount /etc/os-release; rm /fake/*; exit $code",
  ];
  return root.run("sh", "-c", steps.join("\n"));
}

/** Each file got its own label; and whatever systemd starts, and what that starts, a program's. */
export async function expectLabels(root: SystemRoot, calls: string): Promise<void> {
  const files = (await root.shell("cat /usr/local/lib/swarm/files")).trim().split("\n");
  const lines = calls.trim().split("\n");
  const kept = files.filter((path) => path.startsWith("/etc/default/"));
  expect(kept).toHaveLength(2);
  expect(lines).toEqual(
    expect.arrayContaining([
      "restorecon -F -R /usr/local/lib/swarm.new",
      ...files.map((path) => `restorecon -F ${path}`),
    ]),
  );
  const units = await root.shell("cat /usr/local/lib/systemd/system/swarm-*.service");
  const started = [...units.matchAll(/^Exec\w+=[-+!]*(\S*swarm\S*)/gm)].map(([, path]) => path);
  expect(started.length).toBeGreaterThan(3);
  const programs = ["bin/node", "agent/shim/build/swarm-shim", "deploy/end-containers"];
  const real = await root.shell(
    `readlink -f ${started.join(" ")} ${programs.map((name) => `/usr/local/lib/swarm/${name}`).join(" ")}`,
  );
  const labelled = lines
    .filter((line) => line.startsWith("chcon -t bin_t "))
    .flatMap((line) => line.split(" ").slice(3));
  for (const path of real.trim().split("\n"))
    expect(labelled).toContain(path.replace("/lib/swarm/", "/lib/swarm.new/"));
}
