// Goal: settings follow from flags as the help says; every bad one is named at once. Method: tables.
import { describe, expect, test } from "vitest";
import { parseOptions } from "../common/base/options.ts";
import { describeProgram, type ManagerSettings, managerSettings } from "./options.ts";

function settings(argv: readonly string[], facts = { isRoot: true, environment: {} }): ManagerSettings {
  const parsed = parseOptions(describeProgram("0"), argv, {});
  if (parsed.type !== "options") throw new Error(parsed.text);
  return managerSettings(parsed.values, facts);
}

describe("managerSettings", () => {
  test("defaults of root and of others", () => {
    expect(settings([])).toMatchObject({
      dataDirectory: "/var/lib/swarm/manager",
      socket: "/run/swarm/manager.sock",
      listen: undefined,
      advertise: undefined,
      etcd: [],
      cluster: { addressPool: "10.224.0.0/12", heartbeatPeriodMs: 1000, taskHistoryLimit: 5 },
      log: { level: "info" },
    });
    const user = { isRoot: false, environment: { HOME: "/home/u" } };
    expect(settings([], user)).toMatchObject({
      dataDirectory: "/home/u/.local/state/swarm/manager",
      socket: "/home/u/.local/state/swarm/manager/manager.sock",
    });
    const xdg = { isRoot: false, environment: { HOME: "/home/u", XDG_STATE_HOME: "/state" } };
    expect(settings(["--socket", "/s"], xdg)).toMatchObject({ dataDirectory: "/state/swarm/manager", socket: "/s" });
  });

  test.each([
    [["--listen-addr", "0.0.0.0:2377"], { listen: { host: "0.0.0.0", port: 2377 } }],
    [["--listen-addr", "[::1]:0"], { listen: { host: "::1", port: 0 } }],
    [["--advertise-addr", "10.0.0.1"], { advertise: { host: "10.0.0.1", port: undefined } }],
    [["--advertise-addr", "m.example:77"], { advertise: { host: "m.example", port: 77 } }],
    [["--etcd", "http://a:2379, b:2379"], { etcd: ["http://a:2379", "b:2379"] }],
    [["--heartbeat-period", "500ms"], { cluster: { heartbeatPeriodMs: 500 } }],
    [["--log-format", "json"], { log: { format: "json" } }],
  ])("%j", (argv, expected) => {
    expect(settings(argv)).toMatchObject(expected);
  });

  test.each([
    [["--listen-addr", "2377"], "--listen-addr: 2377 is not HOST:PORT"],
    [["--listen-addr", "127.0.0.1:70000"], "is not HOST:PORT"],
    [["--data-dir", "here"], "--data-dir: must be an absolute path"],
    [["--etcd", "a"], "--etcd: a is not"],
    [["--address-pool", "10.0.0.0/30"], "--address-pool"],
    [["--address-pool", "fd00::/12"], "--address-pool"],
    [["--heartbeat-period", "1"], "--heartbeat-period"],
    [["--task-history-limit", "many"], "--task-history-limit"],
    [["--log-level", "loud"], "--log-level: must be one of"],
  ])("%j is refused", (argv, problem) => {
    expect(() => settings(argv)).toThrow(problem);
  });

  test("every bad option is named at once", () => {
    const refused = () => settings(["--log-level", "loud", "--task-history-limit", "x", "--data-dir", "y"]);
    expect(refused).toThrow(/--data-dir: .*--task-history-limit: .*--log-level: /);
  });
});
