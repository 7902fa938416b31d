/**
 * Goal: networks are made, listed, inspected and removed in Docker's words; no two overlap, and none that is in use goes. Method:
 * commands whole, over a control plane whose nodes tell of their routes.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { type ControlPlane, startControlPlane } from "../control-plane.ts";
import { eventually } from "../eventually.ts";
import { runSwarmctl } from "../swarmctl.ts";

let plane: ControlPlane;
beforeAll(async () => {
  plane = await startControlPlane({ nodes: 2 });
});
afterAll(() => plane[Symbol.asyncDispose]());
const swarmctl = (line: string) => runSwarmctl(line.split(" "), { environment: { SWARM_HOST: plane.host } });
const lines = async (line: string) => (await swarmctl(line)).out.split("\n").filter(Boolean);
const inspect = async (line: string) => JSON.parse((await swarmctl(`network inspect ${line}`)).out);

/** Plays that a node's host has routes. */
async function route(...routes: string[]): Promise<void> {
  const [node] = plane.store.view.nodes.values();
  if (!node?.description) throw new Error("no node");
  const object = { ...node, description: { ...node.description, routes } };
  await eventually(async () => {
    const { conflicts } = await plane.store.commit([{ type: "update", kind: "node", object }], {
      signal: plane.signal,
    });
    expect(conflicts).toEqual([]);
  });
}

test("made, listed, inspected, removed", async () => {
  const made = await swarmctl(
    "network create -d overlay --attachable --internal --label tier=gold -o encrypted -o com.docker.network.driver.mtu=1400 " +
      "--subnet 10.9.0.0/24 --gateway 10.9.0.254 --ip-range 10.9.0.128/25 --aux-address printer=10.9.0.2 --subnet fd09::/64 front",
  );
  expect(made).toMatchObject({ code: 0, out: expect.stringMatching(/^[a-z0-9]{25}\n$/), err: "" });
  const id = made.out.trim();
  expect(await inspect("front")).toEqual([
    {
      Name: "front",
      Id: id,
      Created: expect.stringMatching(/^2\d{3}-.*Z$/),
      Scope: "swarm",
      Driver: "overlay",
      EnableIPv4: true,
      EnableIPv6: true,
      IPAM: {
        Driver: "default",
        Options: null,
        Config: [
          {
            Subnet: "10.9.0.0/24",
            IPRange: "10.9.0.128/25",
            Gateway: "10.9.0.254",
            AuxiliaryAddresses: { printer: "10.9.0.2" },
          },
          { Subnet: "fd09::/64", Gateway: "fd09::1" },
        ],
      },
      Internal: true,
      Attachable: true,
      Ingress: false,
      ConfigFrom: { Network: "" },
      ConfigOnly: false,
      Containers: {},
      Options: { encrypted: "", "com.docker.network.driver.mtu": "1400" },
      Labels: { tier: "gold" },
      ServiceNames: [],
    },
  ]);
  expect(await lines("network ls --format {{.Name}}:{{.Driver}}:{{.Scope}}")).toEqual([
    ...["bridge:bridge:local", "front:overlay:swarm", "host:host:local", "ingress:overlay:swarm", "none:null:local"],
  ]);
  expect(await lines("network ls -q --filter label=tier=gold")).toEqual([id.slice(0, 12)]);
  expect(await lines("network ls --filter type=custom --format {{.Subnet}}")).toEqual(["10.9.0.0/24,fd09::/64"]);
  expect(await swarmctl("network create front")).toEqual({
    code: 1,
    out: "",
    err: "swarmctl: network with name front already exists\n",
  });
  expect(await swarmctl(`network rm ${id.slice(0, 9)} nope`)).toEqual({
    code: 1,
    out: `${id.slice(0, 9)}\n`,
    err: "swarmctl: no such network: nope\n",
  });
  expect(await swarmctl("network rm -f nope")).toMatchObject({ code: 0 });
});

test.each([
  ["network rm ingress", "network ingress is always there and cannot be removed"],
  ["network create host", 'name: "host" is a network of the nodes'],
  ["network create --ingress x", "--ingress: the routing mesh's network is always there, and there is one"],
  ["network create --config-only x", "--config-only: networks are made from flags or stack files"],
  ["network create --scope local x", "--scope local: networks are of the whole cluster: only swarm is"],
  ["network create --ipv4=false x", "--ipv4=false: every network has IPv4"],
  ["network create -d macvlan x", 'driver: "macvlan": network drivers are not supported, only overlay is'],
  [
    "network create --subnet 10.224.1.0/24 x",
    "ipam[0].subnet: 10.224.1.0/24 overlaps the cluster's address pool (10.224.0.0/12)",
  ],
  ["network create -o com.docker.network.driver.mtu=500 x", "500 is below 576"],
])("%s is refused", async (line, reason) => {
  const { code, out, err } = await swarmctl(line);
  expect([code, out]).toEqual([1, ""]);
  expect(err).toContain(reason);
});

test("subnets keep off hosts' routes and off one another, however many are made at once", async () => {
  await route("10.0.0.0/24", "192.168.7.0/24");
  await swarmctl("network create --subnet 10.70.0.0/16 early");
  await route("10.0.0.0/24", "192.168.7.0/24", "10.70.9.0/24");
  expect((await inspect("-v early"))[0].Overlaps).toEqual([expect.stringMatching(/^10\.70\.9\.0\/24 on node-\d$/)]);
  await swarmctl("network rm early");
  expect((await swarmctl("network create --subnet 192.168.0.0/16 lan")).err).toMatch(
    /^swarmctl: ipam\[0\]\.subnet: 192\.168\.0\.0\/16 overlaps 192\.168\.7\.0\/24 on /,
  );
  const names = Array.from({ length: 8 }, (_, index) => `many${index}`);
  const made = await Promise.all(names.map((name) => swarmctl(`network create ${name}`)));
  expect(made.map(({ code, err }) => [code, err])).toEqual(names.map(() => [0, ""]));
  const subnets = await lines("network ls --filter name=many --format {{.Subnet}}");
  expect(subnets.sort()).toEqual(names.map((_, index) => `10.0.${index + 1}.0/24`));
  const both = await Promise.all(
    ["one", "two"].map((name) => swarmctl(`network create --subnet 172.30.0.0/16 ${name}`)),
  );
  expect(both.map(({ code }) => code).sort()).toEqual([0, 1]);
  expect(both.map(({ err }) => err).join("")).toMatch(/172\.30\.0\.0\/16 overlaps network (one|two)/);
  expect(await swarmctl("network prune -f --filter until=1h")).toEqual({ code: 0, out: "", err: "" });
  expect(await swarmctl("network prune -f")).toMatchObject({
    code: 0,
    out: expect.stringMatching(/^Deleted Networks:\nmany0\n(?:many\d\n){7}(?:one|two)\n\n$/),
  });
});

test("connect and disconnect change a service's networks", async () => {
  const front = (await swarmctl("network create --subnet 10.60.0.0/24 front")).out.trim();
  const back = (await swarmctl("network create back")).out.trim();
  expect(await swarmctl("service create -d --name db demo/web:1")).toMatchObject({ code: 0 });
  const attachments = async () => {
    const [shown] = JSON.parse((await swarmctl("service inspect db")).out);
    return shown.Spec.TaskTemplate.Networks;
  };
  expect(await swarmctl("network connect -d --alias main --ip 10.60.0.9 front db")).toMatchObject({ code: 0, err: "" });
  expect(await swarmctl(`network connect -d ${back.slice(0, 8)} db`)).toMatchObject({ code: 0, err: "" });
  expect(await attachments()).toEqual([
    { Target: "front", Aliases: ["main"], Addresses: ["10.60.0.9"] },
    { Target: "back" },
  ]);
  expect(await swarmctl("network connect -d front db")).toMatchObject({
    code: 1,
    err: "swarmctl: service db is already on network front\n",
  });
  expect((await swarmctl("network connect --link x front db")).err).toContain("--link: tasks find each other by");
  await eventually(async () => {
    const [{ Services }] = await inspect("-v front");
    expect(Services.db.Tasks).toMatchObject([{ EndpointIP: "10.60.0.9", Addresses: ["10.60.0.9"] }]);
  });
  expect((await swarmctl("service update -d --replicas 2 db")).err).toBe(
    "swarmctl: networks[0].addresses: a fixed address needs a service of one replica\n",
  );
  expect(await swarmctl("network disconnect -d front db")).toMatchObject({ code: 0, err: "" });
  expect((await swarmctl("network disconnect -d front db")).err).toBe("swarmctl: service db is not on network front\n");
  expect(await swarmctl("network disconnect -d -f front db")).toMatchObject({ code: 0 });
  expect(await swarmctl(`service update -d --network-rm ${back} --network-add name=${front},alias=m db`)).toMatchObject(
    {
      code: 0,
    },
  );
  expect(await attachments()).toEqual([{ Target: "front", Aliases: ["m"] }]);
  expect((await swarmctl("service update -d --network-add nope db")).err).toBe("swarmctl: no such network: nope\n");
  expect((await swarmctl("service update -d --network-add name=front,ip=10.60.0.1 db")).err).toBe(
    "swarmctl: networks[0].addresses: 10.60.0.1 is the gateway of network front\n",
  );
  expect((await swarmctl("service update -d --network-add name=front,ip=10.61.0.1 db")).err).toBe(
    "swarmctl: networks[0].addresses: 10.61.0.1 is not in 10.60.0.0/24\n",
  );
  await swarmctl("service rm db");
  expect(await swarmctl("network rm front back")).toMatchObject({ code: 0 });
});

test("how a service is reached: virtual address or names, and whether clients come back to the same task", async () => {
  await swarmctl("network create front");
  expect(
    await swarmctl("service create -d --name web --network front --session-affinity client-ip demo/web:1"),
  ).toMatchObject({ code: 0 });
  await eventually(async () => {
    const [{ Endpoint }] = JSON.parse((await swarmctl("service inspect web")).out);
    expect(Endpoint).toMatchObject({
      Spec: { Mode: "vip", SessionAffinity: "client-ip" },
      VirtualIPs: [{ Addr: expect.stringMatching(/^10\.0\.\d+\.2\/24$/) }],
    });
  });
  expect((await swarmctl("service inspect --pretty web")).out).toMatch(/Virtual IPs:\n front:\t10\.0\.\d+\.2\n/);
  expect((await swarmctl("service update -d --endpoint-mode dnsrr web")).err).toBe(
    "swarmctl: session_affinity: needs the endpoint mode vip: with dnsrr clients choose the task\n",
  );
  await swarmctl("service update -d --endpoint-mode dnsrr --session-affinity none web");
  await eventually(async () => {
    const [{ Endpoint }] = JSON.parse((await swarmctl("service inspect web")).out);
    expect(Endpoint).toEqual({ Spec: { Mode: "dnsrr" } });
  });
  expect((await swarmctl("service update -d --publish-add 80 web")).err).toBe(
    "swarmctl: endpoint_mode: port published with ingress mode can't be used with dnsrr mode\n",
  );
  await swarmctl("service rm web");
  expect(await swarmctl("network rm front")).toMatchObject({ code: 0 });
});

/** A stack's file. */
function stackFile(text: string): string {
  const directory = mkdtempSync(join(tmpdir(), "swarm-network-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  writeFileSync(join(directory, "stack.yml"), text);
  return join(directory, "stack.yml");
}

const QUICK = "{ update_config: { monitor: 10ms } }";
const stackOf = (networks: string) => `services:
  web: { image: "demo/web:1", networks: [front, back], deploy: ${QUICK} }
  db: { image: "demo/db:1", networks: { back: { aliases: [main] } }, deploy: ${QUICK} }
networks: ${networks}
`;

test("a stack brings its networks, never changes one unseen, and takes them away", async () => {
  const deploy = (text: string, ...more: string[]) =>
    swarmctl(["stack", "deploy", "--resolve-image", "never", "-c", stackFile(text), ...more, "shop"].join(" "));
  const first = stackOf(
    '{ front: { labels: { a: b } }, back: { internal: true, ipam: { config: [{ subnet: "10.61.0.0/24" }] } } }',
  );
  const made = await deploy(first);
  expect(made).toMatchObject({ code: 0, err: "" });
  expect(made.out).toMatch(/^Creating network shop_front\nCreating network shop_back\nCreating service shop_web\n/);
  expect(await inspect("shop_back")).toMatchObject([
    {
      Internal: true,
      IPAM: { Config: [{ Subnet: "10.61.0.0/24", Gateway: "10.61.0.1" }] },
      Labels: { "com.docker.stack.namespace": "shop" },
      ServiceNames: ["shop_db", "shop_web"],
    },
  ]);
  const [db] = JSON.parse((await swarmctl("service inspect shop_db")).out);
  expect(db.Spec.TaskTemplate.Networks).toEqual([{ Target: "shop_back", Aliases: ["main", "db"] }]);
  expect((await deploy(first)).out).toContain("Stack shop is unchanged\n");
  expect((await deploy(stackOf("{ front: { attachable: true }, back: { internal: true } }"))).err).toMatch(
    /^swarmctl: networks\.shop_front: is there already and cannot change \(attachable \(none\) -> true\): .*networks\.shop_back: is there already and cannot change \(ipam\[0\]\.subnet 10\.61\.0\.0\/24 -> \(none\)\): /s,
  );
  const relabelled = await deploy(first.replace("a: b", "a: c"));
  expect(relabelled).toMatchObject({ code: 0, err: "" });
  expect((await inspect("shop_front"))[0].Labels).toMatchObject({ a: "c" });

  const less = `services: { db: { image: "demo/db:1", deploy: ${QUICK} } }\n`;
  const planned = await swarmctl(`stack plan --resolve-image never --prune -c ${stackFile(less)} shop`);
  expect(planned.out).toMatch(/^- network shop_front +remove$/m);
  expect(planned.out).toMatch(
    /^= network shop_back +keep \(no longer in the file; needed until .* next --prune removes it\)$/m,
  );
  const pruned = await deploy(less, "--prune");
  expect(pruned.out).toContain("Creating network shop_default\n");
  expect(pruned.out).toContain("Removing network shop_front\n");
  // The service has only just left it.
  expect(pruned.out).not.toContain("Removing network shop_back\n");
  expect(pruned.err).toBe(
    "kept until the next deploy with --prune, since services may go back to them: network shop_back\n",
  );
  await eventually(async () => expect((await deploy(less, "--prune")).out).toContain("Removing network shop_back\n"));
  const back = await swarmctl("stack rollback --to 1 shop");
  expect(back).toMatchObject({ code: 0, err: "" });
  expect(await lines("network ls --filter type=custom --format {{.Name}}")).toEqual(
    expect.arrayContaining(["shop_back", "shop_front"]),
  );

  expect(await swarmctl("service create -d --name guest --network shop_back demo/web:1")).toMatchObject({ code: 0 });
  const removed = await swarmctl("stack rm shop");
  expect(removed.err).toBe("networks are kept, since other services are attached: shop_back\n");
  expect(removed.out).toContain("Removing network shop_front\n");
  expect(await swarmctl("service rm guest")).toMatchObject({ code: 0 });
  expect(await swarmctl("stack rm shop")).toMatchObject({ code: 0, out: "Removing network shop_back\n", err: "" });
  expect(await lines("network ls -q --filter type=custom")).toEqual([]);
});

test("a stack's network that cannot be is refused before anything is made", async () => {
  await swarmctl("network create --subnet 10.62.0.0/24 taken");
  const file = stackFile(
    stackOf('{ front: { external: true }, back: { ipam: { config: [{ subnet: "10.62.0.128/25" }] } } }'),
  );
  const refused = await swarmctl(`stack deploy --resolve-image never -c ${file} shop`);
  expect([refused.code, refused.out]).toEqual([1, ""]);
  expect(refused.err).toContain("networks.front: is external and does not exist: create it with network create");
  expect(refused.err).toContain(
    "networks.shop_back.ipam[0].subnet: 10.62.0.128/25 overlaps network taken (10.62.0.0/24)",
  );
  expect(await lines("network ls --filter type=custom --format {{.Name}}")).toEqual(["taken"]);
  await swarmctl("network rm taken");
});

test("IPv6 beside IPv4: a subnet of its own, and an address of each for tasks", async () => {
  await swarmctl("network create --ipv6 six");
  const [shown] = await inspect("six");
  expect(shown).toMatchObject({
    EnableIPv6: true,
    IPAM: { Config: [{}, { Subnet: expect.stringMatching(/^fd[0-9a-f:]+::\/64$/) }] },
  });
  expect(await swarmctl("service create --name web --network six demo/web:1")).toMatchObject({ code: 0 });
  const [{ Services }] = await inspect("-v six");
  const addresses = [expect.stringMatching(/^10\.0\./), expect.stringMatching(/^fd[0-9a-f:]+$/)];
  expect(Services.web).toMatchObject({ VirtualIPs: addresses, Tasks: [{ Addresses: addresses }] });
  await swarmctl("service rm web");
  expect(await swarmctl("network rm six")).toMatchObject({ code: 0 });
});

test("a full network is said in service ps, and holds nobody else up", async () => {
  await swarmctl("network create --subnet 10.63.0.0/29 small");
  const create = "service create -d --network small --replicas";
  expect(await swarmctl(`${create} 9 --name many demo/web:1`)).toMatchObject({ code: 0 });
  await eventually(async () => {
    const errors = await lines("service ps many --no-trunc --format {{.Error}}");
    expect(errors.filter((error) => error.includes("network small: no free address in 10.63.0.0/29"))).toHaveLength(5);
  });
  expect(await swarmctl("service create --name other demo/web:1")).toMatchObject({ code: 0 });
  await swarmctl("service rm many other");
  expect(await swarmctl("network rm small")).toMatchObject({ code: 0 });
});

test("a service on a network: by name, by beginning of an id, never by what is not there", async () => {
  const id = (await swarmctl("network create back")).out.trim();
  await swarmctl("network create front");
  expect(await swarmctl("service create -d --name lost --network nope demo/web:1")).toMatchObject({
    code: 1,
    err: "swarmctl: networks[0]: network nope not found\n",
  });
  const create = "service create -d --name web --replicas 2";
  expect(
    await swarmctl(`${create} --network ${id.slice(0, 8)} --network name=front,alias=www demo/web:1`),
  ).toMatchObject({
    code: 0,
  });
  await eventually(async () => {
    expect(await lines("service ps web --format {{.CurrentState}}")).toEqual(
      Array(2).fill(expect.stringMatching(/^Running/)),
    );
  });
  const [shown] = await inspect("-v front");
  expect(shown).toMatchObject({
    ServiceNames: ["web"],
    Services: {
      web: {
        VIP: expect.stringMatching(/^10\.0\.\d+\.\d+$/),
        Aliases: ["www"],
        Tasks: [
          { Name: expect.stringMatching(/^web\.1\./), EndpointIP: expect.stringMatching(/^10\.0\./) },
          { Name: expect.stringMatching(/^web\.2\./), EndpointIP: expect.stringMatching(/^10\.0\./) },
        ],
      },
    },
  });
  const [spec] = JSON.parse((await swarmctl("service inspect web")).out);
  expect(spec.Spec.TaskTemplate.Networks).toEqual([{ Target: "back" }, { Target: "front", Aliases: ["www"] }]);
  expect((await swarmctl("network rm front")).err).toBe("swarmctl: network front is in use by service web\n");
  expect(await swarmctl("service rm web")).toMatchObject({ code: 0 });
  expect(await swarmctl("network rm front back")).toMatchObject({ code: 0, out: "front\nback\n" });
});

test("the pools of networks are settings of the cluster", async () => {
  const update = "swarm update --default-addr-pool 172.20.0.0/16 --default-addr-pool 172.21.0.0/16";
  expect(await swarmctl(`${update} --default-addr-pool-mask-length 26 --data-path-port 7777`)).toMatchObject({
    code: 0,
  });
  const info = JSON.parse((await swarmctl("info --format json")).out);
  expect(info).toMatchObject({
    DefaultAddrPool: ["172.20.0.0/16", "172.21.0.0/16"],
    SubnetSize: 26,
    DataPathPort: 7777,
  });
  await swarmctl("network create pooled");
  expect((await inspect("pooled"))[0].IPAM.Config).toEqual([{ Subnet: "172.20.0.0/26", Gateway: "172.20.0.1" }]);
  expect((await swarmctl("swarm update --default-addr-pool 10.230.0.0/16")).err).toBe(
    "swarmctl: network_pools: 10.230.0.0/16 lies within the pool of tasks on no network, 10.224.0.0/12\n",
  );
  expect(await swarmctl("network rm pooled")).toMatchObject({ code: 0 });
});

test("an encrypted network's tasks wait for a node with WireGuard, and say so", async () => {
  await swarmctl("network create --opt encrypted vault");
  await swarmctl("service create -d --name sealed --network vault busybox");
  await eventually(async () => {
    const [task = ""] = await lines("service ps --no-trunc --format {{.CurrentState}}:{{.Error}} sealed");
    expect(task).toMatch(/Pending.*no suitable node \(no WireGuard for an encrypted network on 2 nodes\)/);
  });
  const [node] = plane.store.view.nodes.values();
  if (!node?.description) throw new Error("no node");
  const description = { ...node.description, wireguardKey: new Uint8Array(32).fill(1) };
  const { signal } = plane;
  await eventually(async () => {
    const object = { ...node, description };
    const { conflicts } = await plane.store.commit([{ type: "update", kind: "node", object }], { signal });
    expect(conflicts).toEqual([]);
  });
  await eventually(async () => {
    const [at = ""] = await lines("service ps --format {{.Node}}:{{.CurrentState}} sealed");
    expect(at).toMatch(/^\S+:Running/);
  });
  await swarmctl("service rm sealed");
});
