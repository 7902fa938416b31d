/**
 * Goal: whoever has no certificate can neither stop a manager nor fill it: it goes on answering others within a second, and holds
 * little more memory (hardening case 85 and §4.4). Method: the real program, attacked from addresses of their own by connections,
 * handshakes and frames; meanwhile somebody else calls it, each time over a new connection.
 */
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ConnectionOptions, connect } from "node:tls";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parseHostPort } from "../../common/base/host-port.ts";
import type { ClientTls } from "../../common/rpc/tls.ts";
import type { Attack } from "../hostile/attacks.ts";
import { attack, joinAsMember, watched } from "../hostile/victim.ts";
import { type ManagerProgram, startManagerProgram } from "../manager-program.ts";

/** What a manager may grow by under any of these: V8 collects late, and 500 handshakes are half of it. */
const GROWTH_MIB_MAX = 100;

let folder = "";
let manager: ManagerProgram;
let member: ClientTls;
let attackers = 1;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "hostile-"));
  manager = await startManagerProgram(folder, "m");
  member = (await joinAsMember(manager, join(folder, "node"))).client;
});
afterAll(async () => {
  await manager.stop();
  await rm(folder, { recursive: true, force: true });
});

/** Each from a new address, so that none pays for another. */
async function under(name: Attack) {
  const seen = await watched(manager, member, attack(name, manager, `127.0.0.${++attackers}`));
  expect(seen.medianMs).toBeLessThan(1_000);
  expect(seen.grownMib).toBeLessThan(GROWTH_MIB_MAX);
  return seen;
}

describe.concurrent("85 slow-loris", () => {
  test.each<[Attack, number]>([
    ["half a TLS hello", 5_000],
    ["half an HTTP/2 preface", 20_000],
    ["no request after the preface", 20_000],
    ["a request that never ends", 20_000],
  ])("%s: closed after %i ms at most", { timeout: 90_000 }, async (name, closedMsMax) => {
    const { closedMs = 0 } = (await under(name)).outcome;
    // A busy machine's timers are late.
    expect(closedMs).toBeLessThan(closedMsMax + 5_000);
    expect(closedMs).toBeGreaterThan(1_000);
  });
});

test("85 TLS renegotiation: there is none in TLS 1.3, and nothing older is spoken", async () => {
  const { host = "", port = 0 } = parseHostPort(manager.address) ?? {};
  const open = (options: ConnectionOptions) => connect({ host, port, rejectUnauthorized: false, ...options });
  const modern = open({ ALPNProtocols: ["h2"] });
  await once(modern, "secureConnect");
  expect(modern.getProtocol()).toBe("TLSv1.3");
  const failure = await new Promise((resolve) => modern.renegotiate({}, resolve));
  expect(String(failure)).toMatch(/wrong ssl version/i);
  modern.destroy();
  const [alert] = await once(open({ maxVersion: "TLSv1.2" }), "error");
  expect(String(alert)).toMatch(/alert protocol version/);
});

describe("85 from one address", () => {
  test("10,000 connections: 500 of them are there at once, and not for long", { timeout: 120_000 }, async () => {
    const { outcome, descriptors } = await under("10,000 connections");
    expect(outcome.connected).toBeGreaterThan(500);
    expect(descriptors).toBeGreaterThan(300);
    // Beside them the manager has its own.
    expect(descriptors).toBeLessThan(600);
  });

  test("5,000 handshakes: the first 500, then 50 a second", { timeout: 120_000 }, async () => {
    const { made = 0, refused = 0 } = (await under("5,000 handshakes")).outcome;
    expect(made).toBeGreaterThan(0);
    expect(refused).toBeGreaterThan(1_000);
  });
});

test("calls without end: no more than 32 at once, and tokens are not guessed by them", {
  timeout: 120_000,
}, async () => {
  const { answered = 0, refused = 0 } = (await under("20,000 calls")).outcome;
  expect(answered).toBeGreaterThan(0);
  expect(refused).toBeGreaterThan(10_000);
});

describe("HTTP/2 without measure", () => {
  test.each<[Attack, "hangs up" | "goes on"]>([
    ["rapid reset", "hangs up"],
    ["10,000 streams that stay open", "hangs up"],
    ["settings flood", "hangs up"],
    ["settings of 10,000 values", "hangs up"],
    ["ping flood", "hangs up"],
    ["CONTINUATION flood", "hangs up"],
    ["header bomb", "goes on"],
    ["empty DATA frames", "hangs up"],
    ["priority flood", "hangs up"],
    ["frames of no known type", "hangs up"],
  ])("%s: the manager %s", { timeout: 120_000 }, async (name, answer) => {
    const { outcome } = await under(name);
    expect(outcome.survived === 0 ? "hangs up" : "goes on").toBe(answer);
  });

  test("a million DATA frames of one byte: every request is answered", { timeout: 180_000 }, async () => {
    const { sent = 0, answered = 0 } = (await under("a million DATA frames of one byte")).outcome;
    expect(sent).toBeGreaterThanOrEqual(1_000_000);
    expect(answered).toBe(Math.ceil(1_000_000 / 16_005));
  });
});
