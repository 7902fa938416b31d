// Goal: flags, environment, defaults and help say the same. Method: a small table.
import { describe, expect, test } from "vitest";
import { parseOptions } from "./options.ts";

const program = {
  name: "swarm-thing",
  summary: "Does things.",
  version: "1.2.3",
  options: {
    "data-dir": { value: "PATH", default: "/var/lib/thing", help: "Where things lie" },
    label: { value: "TEXT", help: "What it is called,\nif anything" },
    insecure: { help: "Do it anyway" },
  },
} as const;

const parse = (argv: readonly string[], environment = {}) => parseOptions(program, argv, environment);

describe("parseOptions", () => {
  test("defaults, then environment, then flags", () => {
    expect(parse([])).toEqual({
      type: "options",
      values: { "data-dir": "/var/lib/thing", label: undefined, insecure: false },
    });
    const environment = { SWARM_THING_DATA_DIR: "/env", SWARM_THING_LABEL: "", SWARM_THING_INSECURE: "true" };
    expect(parse(["--label=x"], environment)).toEqual({
      type: "options",
      values: { "data-dir": "/env", label: "x", insecure: true },
    });
    expect(parse(["--data-dir", "/flag"], environment)).toMatchObject({ values: { "data-dir": "/flag" } });
  });

  test.each([
    [["--dat-dir", "/x"], "unknown flag: --dat-dir (did you mean --data-dir?)"],
    [["--zzzzzzzz"], "unknown flag: --zzzzzzzz"],
    [["--insecure=yes"], "--insecure takes no value"],
    [["--data-dir"], "--data-dir needs a value: PATH"],
    [["run"], 'unexpected argument "run"'],
    [["--constructor"], "unknown flag: --constructor"],
  ])("%j is refused", (argv, problem) => {
    const parsed = parse(argv);
    expect(parsed.type).toBe("usage");
    expect(parsed).toMatchObject({ text: expect.stringContaining(problem) });
  });

  test("a bad variable is refused by its name", () => {
    expect(parse([], { SWARM_THING_INSECURE: "perhaps" })).toMatchObject({
      type: "usage",
      text: expect.stringContaining('SWARM_THING_INSECURE: "perhaps" is neither true nor false'),
    });
  });

  test("help and version win over everything", () => {
    expect(parse(["--version"])).toEqual({ type: "version", text: "swarm-thing 1.2.3\n" });
    const help = parse(["-h"]);
    expect(help.type === "help" ? help.text : "").toMatchInlineSnapshot(`
      "Usage: swarm-thing [OPTIONS]

      Does things.

      Options:
        --data-dir PATH
              Where things lie (default /var/lib/thing)
        --label TEXT
              What it is called,
              if anything
        --insecure
              Do it anyway
        -h, --help
              Print this help
        --version
              Print the version

      Every option can also be set by an environment variable: SWARM_THING_…, for example SWARM_THING_DATA_DIR. Flags win.
      "
    `);
  });
});
