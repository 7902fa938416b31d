import { expect, test } from "vitest";
import type { Logger } from "../../common/base/logger.ts";
import { HostWatch, hostWarnings } from "./host-warnings.ts";
import type { BaseChain } from "./rule-loader.ts";

const { signal } = new AbortController();

/** Goal: what is told of a host's settings, and when. Method: a host that consists of those settings. */
function hostOf(settings: Record<string, string>, chains: readonly BaseChain[] = []) {
  const said: string[] = [];
  const looks = { firewall: 0 };
  const say = (what: string) => (fields: string | Readonly<Record<string, unknown>>) => {
    said.push(typeof fields === "string" ? fields : `${what} ${fields.warning}`);
  };
  const silent = () => {};
  const logger: Logger = { debug: silent, info: say("gone"), warn: say("come"), error: silent, child: () => logger };
  const options = {
    device: "swarm0",
    group: 7,
    sysctls: { read: async (name: string) => settings[name], write: async () => {} },
    rules: {
      load: async () => {},
      chain: async () => "",
      baseChains: async () => {
        looks.firewall += 1;
        return chains;
      },
    },
    logger,
  };
  return { options, said, looks };
}

const tracked = (count: number | undefined, max = 1_000) => ({
  "net/netfilter/nf_conntrack_max": String(max),
  ...(count !== undefined && { "net/netfilter/nf_conntrack_count": String(count) }),
});
const NEARLY_FULL =
  "net.netfilter.nf_conntrack_max=1000 is nearly reached, and then new connections are dropped without a word: run sysctl -w net.netfilter.nf_conntrack_max=2000";

test.each([
  ["below the share", tracked(800), []],
  ["above it", tracked(801), [NEARLY_FULL]],
  ["full", tracked(1_001), [NEARLY_FULL]],
  ["no limit", tracked(5_000, 0), []],
  ["the kernel tracks nothing", {}, []],
  ["a namespace without a count", tracked(undefined), []],
])("tracked connections: %s", async (_what, settings, expected) => {
  expect(await hostWarnings(hostOf(settings).options, signal)).toEqual(expected);
});

test("settings and firewalls are told together", async () => {
  const chain = { family: "ip", table: "filter", name: "FORWARD", hook: "forward", policy: "drop" };
  const { options } = hostOf({ ...tracked(900), "net/ipv4/conf/all/rp_filter": "1" }, [chain]);
  expect(await hostWarnings(options, signal)).toEqual([
    expect.stringMatching(/^net\.ipv4\.conf\.all\.rp_filter=1 /),
    NEARLY_FULL,
    expect.stringMatching(/^chain FORWARD of table ip filter drops forwarded packets: run nft 'insert rule /),
  ]);
});

test("the log hears once of what comes and once of what has been gone for a minute; nft runs once a minute", async () => {
  const settings: Record<string, string> = tracked(100);
  const { options, said, looks } = hostOf(settings);
  const watch = new HostWatch(options);
  const look = async (count: number, times: number) => {
    Object.assign(settings, tracked(count));
    for (let time = 0; time < times; time++) await watch.look(signal);
  };
  await look(100, 1);
  expect(said).toEqual([]);
  for (let swing = 0; swing < 20; swing++) {
    await look(850, 1);
    await look(750, 1);
  }
  expect(said).toEqual([`come ${NEARLY_FULL}`]);
  const changes = watch.changes(signal);
  expect((await changes.next()).value).toEqual([NEARLY_FULL]);
  await look(100, 10);
  expect(said).toHaveLength(1);
  await look(100, 9);
  expect(said).toEqual([`come ${NEARLY_FULL}`, `gone ${NEARLY_FULL}`]);
  expect((await changes.next()).value).toEqual([]);
  await look(900, 1);
  expect(said).toHaveLength(3);
  expect(watch.told).toEqual([NEARLY_FULL]);
  expect(looks.firewall).toBe(Math.ceil((1 + 40 + 19 + 1) / 12));
});
