/** Checks of what a service's spec says of networks. Whether those exist is the API's to find. Used by `validateServiceSpec` alone. */
import {
  EndpointSpec_Affinity,
  EndpointSpec_Mode,
  type ServiceSpec,
  UpdateConfig_Order,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { replicasOf, updateOrder } from "./defaults.ts";
import { parseIpAddress } from "./ip-prefix.ts";
import { INGRESS_NETWORK, isNodeNetwork, isWithoutNetwork } from "./networks.ts";
import { isIngress } from "./ports.ts";
import { completionsOf } from "./service-mode.ts";
import { quoted } from "./units.ts";
import type { Problems } from "./validate-parts.ts";

/** Each is an interface in every task. */
const NETWORKS_MAX = 64;
const ALIASES_MAX = 64;
/** As names in DNS go, with the underscores that people use. */
const ALIAS =
  /^(?=.{1,253}$)[a-zA-Z0-9_](?:[a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?(?:\.[a-zA-Z0-9_](?:[a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?)*$/;

export function checkAttachments(spec: ServiceSpec, problems: Problems): void {
  const networks = spec.task?.networks ?? [];
  if (networks.length > NETWORKS_MAX) problems.add("networks", `at most ${NETWORKS_MAX}`);
  if (networks.length > 1 && isWithoutNetwork(spec)) {
    problems.add("networks", "host and none cannot stand beside other networks");
  }
  const seen = new Set<string>();
  networks.slice(0, NETWORKS_MAX).forEach(({ target, aliases, driverOpts, addresses }, index) => {
    const field = `networks[${index}]`;
    if (target === "") problems.add(field, "a network must be named");
    if (target === INGRESS_NETWORK) problems.add(field, "services are not attached to the routing mesh: publish ports");
    if (seen.has(target)) problems.add(field, `${quoted(target)} stands twice`);
    seen.add(target);
    if (isNodeNetwork(target) && aliases.length + addresses.length > 0) {
      problems.add(field, `network ${target} has neither aliases nor fixed addresses`);
    }
    if (aliases.length > ALIASES_MAX) problems.add(field, `at most ${ALIASES_MAX} aliases`);
    for (const alias of aliases.slice(0, ALIASES_MAX)) {
      if (!ALIAS.test(alias)) problems.add(`${field}.aliases`, `${quoted(alias)} is not a name that DNS has`);
    }
    for (const option of Object.keys(driverOpts)) {
      problems.add(`${field}.driver_opts`, `unknown option ${quoted(option)}: attachments have none`);
    }
    if (addresses.length > 0) checkAddresses(spec, addresses, field, problems);
  });
}

/** An address that is one task's own cannot be two tasks', not even for the time of an update. */
function checkAddresses(spec: ServiceSpec, addresses: readonly string[], field: string, problems: Problems): void {
  const families = addresses.map((address) => parseIpAddress(address)?.family);
  addresses.forEach((address, index) => {
    const family = families[index];
    if (family === undefined) problems.add(`${field}.addresses`, `${quoted(address)} is not an IP address`);
    else if (families.indexOf(family) < index) problems.add(`${field}.addresses`, `a second IPv${family} address`);
  });
  const mode = spec.mode?.mode.case ?? "replicated";
  const isSingle =
    mode === "replicated" ? replicasOf(spec) <= 1 : mode === "replicatedJob" && completionsOf(spec) === 1;
  if (!isSingle) problems.add(`${field}.addresses`, "a fixed address needs a service of one replica");
  if (updateOrder(spec.update) === UpdateConfig_Order.START_FIRST) {
    problems.add(`${field}.addresses`, "a fixed address needs the update order stop-first");
  }
}

/** How the service is reached under its name. */
export function checkEndpointMode(spec: ServiceSpec, problems: Problems): void {
  const { endpoint } = spec;
  if (endpoint === undefined) return;
  problems.known("endpoint_mode", endpoint.mode, EndpointSpec_Mode);
  problems.known("session_affinity", endpoint.affinity, EndpointSpec_Affinity);
  if (endpoint.mode !== EndpointSpec_Mode.DNSRR) return;
  if (endpoint.ports.some(isIngress)) {
    problems.add("endpoint_mode", "port published with ingress mode can't be used with dnsrr mode");
  }
  if (endpoint.affinity !== EndpointSpec_Affinity.NONE) {
    problems.add("session_affinity", "needs the endpoint mode vip: with dnsrr clients choose the task");
  }
}
