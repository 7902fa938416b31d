/**
 * Goal: the cluster's authority is seen and set by Docker's words. Method: the real command dispatcher, wire, API, store and
 * loops; nodes are played.
 */
import { X509Certificate } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type ControlPlane, startControlPlane } from "../control-plane.ts";
import { runSwarmctl } from "../swarmctl.ts";

let plane: ControlPlane;
beforeAll(async () => {
  plane = await startControlPlane({ nodes: 1 });
});
afterAll(() => plane[Symbol.asyncDispose]());
const swarmctl = (...argv: string[]) => runSwarmctl(argv, { environment: { SWARM_HOST: plane.host } });

test("swarm ca prints the root, and nothing secret leaves", async () => {
  const { code, out, err } = await swarmctl("swarm", "ca");
  expect([code, err]).toEqual([0, ""]);
  expect(new X509Certificate(out)).toMatchObject({ ca: true, subject: "CN=swarm-ca" });
  expect(await swarmctl("swarm", "ca", "x")).toMatchObject({ code: 2 });
  expect((await swarmctl("info", "--format", "json")).out).not.toMatch(/sealed/i);
});

test("certificates live for an hour or more", async () => {
  expect((await swarmctl("info")).out).toMatch(/CA Configuration:\n {2}Expiry Duration: 3 months\n/);
  expect(await swarmctl("swarm", "update", "--cert-expiry", "59m59s")).toEqual({
    code: 1,
    out: "",
    err: "swarmctl: certificate_lifetime: must be at least 1h\n",
  });
  for (const bad of ["-1h", "0", "3"]) {
    expect((await swarmctl("swarm", "update", "--cert-expiry", bad)).code, bad).toBeGreaterThan(0);
  }
  expect((await swarmctl("swarm", "update", "--cert-expiry", "1h")).out).toBe("Swarm updated.\n");
  expect(plane.store.view.cluster?.spec?.certificateLifetime).toMatchObject({ seconds: 3600n });
  expect((await swarmctl("info")).out).toContain("Expiry Duration: About an hour\n");
});
