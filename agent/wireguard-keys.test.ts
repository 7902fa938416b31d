/** Goal: a node's key is replaced when its time is over, and none is used that managers do not have. */
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { SwarmError } from "../common/base/error.ts";
import { FakeClock } from "../common/base/fake-clock.ts";
import { openLogger } from "../common/base/logger.ts";
import { publicKeyOf } from "./network/wireguard-key.ts";
import { WireguardKeys } from "./wireguard-keys.ts";

const LIFETIME_MS = 12 * 3_600_000;
const logger = openLogger("test", { level: "error", format: "json" });
let directory = "";

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "swarm-keys-"));
});
afterEach(() => rmSync(directory, { recursive: true }));

function open(clock: FakeClock): WireguardKeys {
  return WireguardKeys.open({ clock, logger, path: join(directory, "keys"), lifetimeMs: LIFETIME_MS });
}

function hex(key: Uint8Array): string {
  return Buffer.from(key).toString("hex");
}

test("the first key is nobody else's to read, and is still there after a restart", () => {
  const clock = new FakeClock();
  const keys = open(clock);
  expect(hex(keys.told)).toBe(hex(publicKeyOf(keys.inUse)));
  expect(statSync(join(directory, "keys")).mode & 0o777).toBe(0o600);
  expect(hex(open(clock).inUse)).toBe(hex(keys.inUse));
  writeFileSync(join(directory, "keys"), "{}");
  expect(hex(open(clock).inUse)).not.toBe(hex(keys.inUse));
});

test("the next is told first and used then, at its time and not before", async () => {
  const clock = new FakeClock();
  const keys = open(clock);
  const first = hex(keys.inUse);
  const steps: string[] = [];
  const stop = new AbortController();
  const running = keys.run(
    async (key) => void steps.push(`tell ${hex(key)} while ${hex(keys.inUse)}`),
    async (key) => void steps.push(`use ${hex(key)}`),
    stop.signal,
  );
  await clock.advance(LIFETIME_MS - 1);
  expect(steps).toEqual([]);
  await clock.advance(1);
  const second = hex(keys.inUse);
  expect(second).not.toBe(first);
  expect(steps).toEqual([`tell ${hex(keys.told)} while ${first}`, `use ${second}`]);
  stop.abort();
  await expect(running).rejects.toThrow();
});

test("one that could not be told is told again, by the next session after a restart too, and not used before", async () => {
  const clock = new FakeClock();
  const keys = open(clock);
  const first = hex(keys.inUse);
  const told: string[] = [];
  const stop = new AbortController();
  const running = keys.run(
    async (key) => {
      told.push(hex(key));
      throw new SwarmError("unavailable", "no manager");
    },
    async () => expect.unreachable(),
    stop.signal,
  );
  await clock.advance(LIFETIME_MS);
  await clock.advance(60_000);
  expect(told).toHaveLength(2);
  expect(new Set(told)).toEqual(new Set([hex(keys.told)]));
  expect(hex(keys.inUse)).toBe(first);
  stop.abort();
  await expect(running).rejects.toThrow();
  const restarted = open(clock);
  expect([hex(restarted.inUse), hex(restarted.told)]).toEqual([first, told[0]]);
  expect(restarted.settle()).toBe(true);
  expect(hex(publicKeyOf(restarted.inUse))).toBe(told[0]);
  expect(restarted.settle()).toBe(false);
});
