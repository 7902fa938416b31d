import { describe, expect, test } from "vitest";
import { parseArguments } from "./parse.ts";

const table = {
  quiet: { kind: "boolean", short: "q", help: "" },
  "no-resolve": { kind: "boolean", help: "" },
  filter: { kind: "list", short: "f", help: "" },
  publish: { kind: "list", short: "p", help: "" },
  replicas: { kind: "text", help: "" },
} as const;

function read(argv: string, interspersed = true): string {
  try {
    const { flags, words } = parseArguments(argv.split(" "), table, { interspersed });
    const given = flags.names().map((name) => `${name}=${flags.list(name).join(",")}`);
    return `${given.join(" ")} | ${words.join(" ")}`;
  } catch (reason) {
    return reason instanceof Error ? reason.message : "";
  }
}

describe("pflag's rules", () => {
  test.each([
    ["-qf a=b", "quiet=true filter=a=b | "],
    ["-fa=b -f=c -p8080:80", "filter=a=b,c publish=8080:80 | "],
    ["--quiet=false web", "quiet=false | web"],
    ["--no-resolve web -q", "no-resolve=true quiet=true | web"],
    ["--replicas 1 --replicas=2", "replicas=1,2 | "],
    ["-- -q", " | -q"],
    ["- web", " | - web"],
    ["--replicas", "flag needs an argument: --replicas"],
    ["-x", 'unknown shorthand flag: "x" in "-x"'],
    ["--replcas 3", "unknown flag: --replcas (did you mean --replicas?)"],
    ["--constructor", "unknown flag: --constructor"],
    ["--quiet=maybe", 'invalid argument "maybe" for --quiet: true or false'],
  ])("%s", (argv, expected) => {
    expect(read(argv)).toBe(expected);
  });

  test("flags end at the first word where the rest is a container's command line", () => {
    expect(read("-q nginx sh -c --flag -x", false)).toBe("quiet=true | nginx sh -c --flag -x");
  });
});
