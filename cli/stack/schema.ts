/** The schema of a whole stack file. */
import { asFileObject, asResource, asVolume } from "./normalise.ts";
import type { Rule } from "./rule.ts";
import { service } from "./schema-service.ts";
import { anything, flag, listOf, NAMES, open, options, pairs, text, textOrTexts } from "./schema-values.ts";

const external: Rule = { scalar: { types: ["boolean"] }, map: { fields: { name: text() } } };

const network: Rule = {
  nullable: true,
  printEmpty: true,
  ...open({
    name: text(),
    driver: text(),
    driver_opts: options,
    ipam: open({
      driver: text(),
      config: listOf(open({ subnet: text(), ip_range: text(), gateway: text(), aux_addresses: options })),
      options,
    }),
    external,
    internal: flag,
    attachable: flag,
    enable_ipv4: { ...flag, printEmpty: true },
    enable_ipv6: flag,
    labels: pairs,
  }),
  normalise: asResource,
};

const volume: Rule = {
  nullable: true,
  printEmpty: true,
  ...open({ name: text(), driver: text(), driver_opts: options, external, labels: pairs }),
  normalise: asVolume,
};

const fileObject = {
  name: text(),
  file: text(),
  environment: text(),
  external,
  labels: pairs,
  template_driver: text(),
};

const secret: Rule = {
  printEmpty: true,
  ...open({ ...fileObject, driver: text(), driver_opts: options }),
  normalise: asFileObject,
};

const config: Rule = { printEmpty: true, ...open({ ...fileObject, content: text() }), normalise: asFileObject };

function section(others: Rule): Rule {
  return { nullable: true, map: { names: NAMES, others, extensions: true }, merge: "entries" };
}

/** The files that one file takes in. */
const include: Rule = listOf({
  scalar: { types: ["string"] },
  ...open({ path: textOrTexts, project_directory: text(), env_file: textOrTexts }, { required: ["path"] }),
});

/** Everything that a stack file may say. */
export const stackFile: Rule = open({
  version: { scalar: { types: ["string", "number"] } },
  name: text(),
  include,
  services: { map: { names: NAMES, others: service }, printEmpty: true },
  networks: section(network),
  volumes: section(volume),
  secrets: section(secret),
  configs: section(config),
  models: anything,
});

/** The sections whose entries have names. */
export const SECTIONS = ["services", "networks", "volumes", "secrets", "configs"] as const;
