/** Goal: each secret and config appears where Docker puts it, by folders that are mounted and links. */
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ContainerSpecSchema, ContentPinSchema } from "../proto/gen/swarm/v1/types_pb.js";
import { planContents } from "./content-plan.ts";

const pin = (objectId: string) => create(ContentPinSchema, { objectId, version: 3n });

test("secrets below /run/secrets, secrets elsewhere, configs, owners and modes", () => {
  const spec = create(ContainerSpecSchema, {
    secrets: [
      { secretId: "s1", secretName: "password" },
      { secretId: "s2", secretName: "key", file: { name: "tls//server.key", uid: "33", gid: "34", mode: 0o400 } },
      { secretId: "s1", secretName: "password", file: { name: "/etc/app/password" } },
      { secretId: "gone", secretName: "gone" },
    ],
    configs: [
      { configId: "c1", configName: "app.conf" },
      { configId: "c1", configName: "app.conf", file: { name: "/etc/app.conf", mode: 0 } },
    ],
  });
  const plan = planContents(spec, [pin("s1"), pin("s2"), pin("c1")]);
  expect(
    plan.files.map(({ path, target, uid, gid, mode }) => `${path} ${target} ${uid}:${gid} ${mode.toString(8)}`),
  ).toMatchInlineSnapshot(`
    [
      "secrets/password /run/secrets/password 0:0 444",
      "secrets/tls/server.key /run/secrets/tls/server.key 33:34 400",
      "secrets/.target/2 /etc/app/password 0:0 444",
      "configs/0 /app.conf 0:0 444",
      "configs/1 /etc/app.conf 0:0 0",
    ]
  `);
  expect(plan.mounts).toEqual([
    { folder: "secrets", target: "/run/secrets" },
    { folder: "configs", target: "/run/swarm/configs" },
  ]);
  expect(plan.links).toEqual([
    { path: "/etc/app/password", target: "/run/secrets/.target/2" },
    { path: "/app.conf", target: "/run/swarm/configs/0" },
    { path: "/etc/app.conf", target: "/run/swarm/configs/1" },
  ]);
});

test("a container without contents mounts nothing", () => {
  expect(planContents(create(ContainerSpecSchema), [])).toEqual({ files: [], mounts: [], links: [] });
});
