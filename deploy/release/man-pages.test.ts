/**
 * Goal: the manual has a page for everything and every flag on it, and whatever reads manuals reads it. Method: the tables against the
 * pages; mandoc, which says what it does not understand.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { beforeAll, expect, test } from "vitest";
import { COMMANDS } from "../../cli/command-table.ts";
import { manual } from "./man-pages.ts";
import { type ManPage, text } from "./roff.ts";

let pages: ReadonlyMap<string, ManPage>;
beforeAll(async () => {
  pages = new Map((await manual("1.2.3", "2026-01-31")).map((page) => [page.name, page]));
});

const page = (name: string) => pages.get(name)?.source ?? "";

test("every command has a page with its flags, and the first page names it", async () => {
  for (const [name, { load }] of Object.entries(COMMANDS)) {
    const { command } = await load();
    const source = page(`swarmctl-${name.replace(" ", "-")}`);
    expect(page("swarmctl")).toContain(text(name));
    const flags = Object.entries(command.flags).filter(([, { aliasOf }]) => aliasOf === undefined);
    for (const [flag] of flags) expect(source).toContain(`\\fB${text(`--${flag}`)}\\fR`);
  }
  expect(pages.size).toBe(Object.keys(COMMANDS).length + 3);
});

test("the daemons' pages have their options, defaults and files", () => {
  expect(page("swarm-manager")).toContain("\\fB\\-\\-listen\\-addr\\fR \\fIHOST:PORT\\fR");
  expect(page("swarm-agent")).toContain("(default /var/lib/swarm/agent)");
  expect(page("swarm-agent")).toContain("/etc/default/swarm\\-agent");
});

test("text is never taken for a macro or an escape", () => {
  expect(text(".TH a\n'b\\c-d … é")).toBe("\\&.TH a\n\\&'b\\ec\\-d \\[u2026] \\[u00E9]");
});

test.skipIf(!existsSync("/usr/bin/mandoc"))("mandoc has nothing to say against any page", () => {
  for (const { name, section, source } of pages.values()) {
    const { stdout, status } = spawnSync("mandoc", ["-T", "lint", "-W", "warning"], {
      input: source,
      encoding: "utf8",
    });
    expect({ name, section, stdout, status }).toEqual({ name, section, stdout: "", status: 0 });
  }
  const shown = spawnSync("mandoc", ["-T", "html"], {
    input: page("swarmctl-service-scale"),
    encoding: "utf8",
  }).stdout;
  expect(shown).toMatch(/SYNOPSIS[\s\S]*swarmctl service scale \[OPTIONS\] SERVICE=REPLICAS/);
});
