/**
 * Goal: a host that can encrypt nothing sends nothing of encrypted networks anywhere. Method: one host without a key. What
 * hosts with keys do is shown by test/vm/guest/wireguard.test.ts.
 */
import { expect } from "vitest";
import { Lab } from "../../test/network-lab.ts";
import { rootTest } from "../../test/privileges.ts";

rootTest("without a key encrypted networks lead nowhere, others as ever", async () => {
  await using lab = await Lab.open(1);
  await lab.ask({ do: "open", pool: "10.224.0.0/12", local: lab.host.address });
  const networks = [{ subnet: "10.0.5.0/24", encrypted: true }, { subnet: "10.0.1.0/24" }];
  const remote = { "10.0.5.12": "192.0.2.2", "10.0.6.12": "192.0.2.2", "10.0.1.12": "192.0.2.2" };
  const published = [{ protocol: "tcp", port: 8080, targets: [{ address: "10.0.6.12", port: 80 }] } as const];
  const encrypted = ["10.0.5.12", "10.0.6.12"];
  await lab.ask({ do: "cluster", cluster: { networks, hosts: ["192.0.2.2"], remote, encrypted, published } });
  const routes = await lab.inHost("ip", "route");
  expect(routes).toMatch(/^unreachable 10\.0\.5\.0\/24 proto 83/m);
  expect(routes).toMatch(/^unreachable 10\.0\.6\.12 proto 83/m);
  expect(routes).toMatch(/^10\.0\.1\.12 via 192\.0\.2\.2 dev swarm0 /m);
  expect(routes).not.toContain("10.0.5.12");
  const rules = await lab.inHost("nft", "list", "table", "ip", "swarm0");
  expect(rules).toMatch(/ip daddr @secret oifname != "swarm0e" oifgroup != \d+ drop/);
  // Nobody is led to a target that cannot be reached.
  expect(rules).not.toContain("8080");
  await lab.ask({ do: "cluster", cluster: { networks: networks.slice(1), remote: {} } });
  expect(await lab.inHost("ip", "route")).not.toContain("unreachable");
  expect(await lab.inHost("nft", "list", "table", "ip", "swarm0")).not.toContain("secret");
});
