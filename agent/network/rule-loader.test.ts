import { describe, expect, test } from "vitest";
import { rootTest } from "../../test/privileges.ts";
import { decodeBaseChains, NftRuleLoader } from "./rule-loader.ts";

const { signal } = new AbortController();

describe("loading rules", () => {
  test("says what to install when nft is missing", async () => {
    await expect(new NftRuleLoader("nft-that-is-not-there").load("", signal)).rejects.toThrow(
      "run nft-that-is-not-there: not installed (apt-get install nftables)",
    );
  });

  rootTest("passes on nft's own words", async () => {
    await expect(new NftRuleLoader().load("table ip {", signal)).rejects.toThrow("nft: /dev/stdin:1:10-10: Error");
  });

  test("finds base chains among what nft lists", () => {
    const base = { family: "ip", table: "filter", name: "FORWARD", hook: "forward", policy: "drop" };
    const plain = { family: "ip", table: "filter", name: "DOCKER" };
    const entries = [{ metainfo: {} }, { chain: { ...base, handle: 1, prio: 0, type: "filter" } }, { chain: plain }];
    expect(decodeBaseChains(JSON.stringify({ nftables: entries }))).toEqual([base]);
    expect(() => decodeBaseChains("no")).toThrow("read nft's list of chains");
    expect(() => decodeBaseChains("{}")).toThrow("no list in it");
  });
});
