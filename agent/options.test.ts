/** Goal: settings follow flags and environment; every bad option is named at once. Method: argv in, settings out. */
import { expect, test } from "vitest";
import { parseOptions } from "../common/base/options.ts";
import { agentSettings, describeProgram } from "./options.ts";

function settings(argv: readonly string[], environment: Record<string, string> = {}) {
  const parsed = parseOptions(describeProgram("1"), argv, environment);
  if (parsed.type !== "options") throw new Error(parsed.text);
  return agentSettings(parsed.values);
}

test("defaults, flags and environment", () => {
  expect(settings([])).toMatchObject({ managers: ["127.0.0.1:2377"], networkDevice: "swarm0", labels: {} });
  expect(
    settings(["--manager", "a:1, b:2", "--join-token-file", "/t", "--label", "disk=ssd,zone=a=b"], {
      SWARM_AGENT_HOSTNAME: "n7",
    }),
  ).toMatchObject({
    managers: ["a:1", "b:2"],
    labels: { disk: "ssd", zone: "a=b" },
    hostname: "n7",
  });
});

test("images are kept for a day, for as long as it is said, or for ever", () => {
  expect(settings([]).imageRetentionMs).toBe(86_400_000);
  expect(settings(["--image-retention", "90m"]).imageRetentionMs).toBe(5_400_000);
  expect(settings(["--image-retention", "0"]).imageRetentionMs).toBe(0);
  for (const bad of ["1m", "-1h", "day"])
    expect(() => settings(["--image-retention", bad])).toThrow("--image-retention");
});

test("bad options", () => {
  const bad = [
    "--manager",
    "a,b:1",
    "--data-dir",
    "x",
    "--network-device",
    "much-too-long-a-name",
    "--label",
    "x",
    "--log-level",
    "loud",
  ];
  expect(() => settings(bad)).toThrow(
    /--manager: a is not HOST:PORT.*--data-dir.*--network-device.*--label.*--log-level/,
  );
  expect(() => settings(["--bogus"])).toThrow("unknown flag");
});
