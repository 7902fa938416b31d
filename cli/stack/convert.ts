/** A merged file → StackSpec, as docker/cli converts it (cli/compose/convert). What cannot be done is refused here, by name. */
import { create } from "@bufbuild/protobuf";
import { validateServiceSpec } from "../../common/model/validate.ts";
import { readVolumeOptions } from "../../common/model/volume-options.ts";
import { type StackSpec, StackSpecSchema } from "../../proto/gen/swarm/v1/control_pb.js";
import { type ServiceSpec, ServiceSpecSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { convertContainer, NAMESPACE_LABEL, recordOf } from "./convert-container.ts";
import {
  convertLogging,
  convertMode,
  convertPlacement,
  convertResources,
  convertRestart,
  convertUpdate,
} from "./convert-deploy.ts";
import { convertFileObjects } from "./convert-files.ts";
import { convertEndpoint, convertNetworks, convertStackNetworks } from "./convert-network.ts";
import { convertOrder } from "./convert-order.ts";
import { refuseFields } from "./refused.ts";
import { type ConvertContext, ServiceSite, scopedName } from "./site.ts";
import { child, entriesOf, flagOf, type MapNode, textOf, under } from "./tree.ts";

/** The image as the file has it, before a digest is put to it. */
export const IMAGE_LABEL = "com.docker.stack.image";
/** More services in one stack is a mistake, and more than one transaction takes. */
const SERVICES_MAX = 500;
const STACK_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}$/;

/** What a file becomes. Only of use when `findings` has no problem afterwards. */
export function convertStack(
  file: MapNode,
  name: string | undefined,
  given: Omit<ConvertContext, "stack" | "file">,
): { readonly spec: StackSpec; readonly unsetReplicas: ReadonlySet<string> } {
  const { findings } = given;
  const isNamed = STACK_NAME.test(name ?? "");
  // Names that are made of a bad one would all be told of, too.
  const stack = isNamed ? (name ?? "") : "stack";
  const context: ConvertContext = { ...given, stack, file };
  if (!isNamed) {
    const at = child(file, "name") ?? file;
    findings.problem(
      at.place,
      "name",
      name === undefined || name === ""
        ? "the stack needs a name: give one as the argument STACK, or here"
        : `invalid stack name: ${JSON.stringify(name.slice(0, 80))}`,
    );
  }
  const services = child(file, "services");
  const all = services?.kind === "map" ? [...services.entries] : [];
  if (all.length > SERVICES_MAX) {
    findings.problem(
      services?.place ?? file.place,
      "services",
      `${all.length} services: at most ${SERVICES_MAX} in a stack`,
    );
    return { spec: create(StackSpecSchema, {}), unsetReplicas: new Set() };
  }
  if (all.length === 0) findings.problem(services?.place ?? file.place, "services", "the stack has no services");
  const unsetReplicas = new Set<string>();
  const sites = all.flatMap(([key, { value }]) => (value.kind === "map" ? [new ServiceSite(key, value, context)] : []));
  const order = convertOrder(sites);
  const converted = sites.map((site) => {
    const { spec, open } = convertService(site);
    spec.dependsOn = create(ServiceSpecSchema, { dependsOn: [...(order.get(site.key) ?? [])] }).dependsOn;
    if (open) unsetReplicas.add(spec.name);
    return spec;
  });
  const secrets = convertFileObjects("secrets", context);
  const configs = convertFileObjects("configs", context);
  const spec = create(StackSpecSchema, {
    name: stack,
    services: converted,
    secrets: secrets.own,
    configs: configs.own,
    ...convertVolumes(context),
    ...convertStackNetworks(context, converted),
    externalSecrets: secrets.external,
    externalConfigs: configs.external,
  });
  return { spec, unsetReplicas };
}

function convertService(site: ServiceSite): { readonly spec: ServiceSpec; readonly open: boolean } {
  const { stack } = site.context;
  refuseFields(site);
  const { mode, open } = convertMode(site);
  const spec = create(ServiceSpecSchema, {
    name: `${stack}_${site.key}`,
    labels: {
      ...recordOf(site.at("deploy", "labels")),
      [NAMESPACE_LABEL]: stack,
      [IMAGE_LABEL]: textOf(site.at("image")) ?? "",
    },
    task: {
      container: convertContainer(site),
      resources: convertResources(site),
      restart: convertRestart(site),
      placement: convertPlacement(site),
      logDriver: convertLogging(site),
      networks: convertNetworks(site),
    },
    mode,
    update: convertUpdate(site, "update_config"),
    rollback: convertUpdate(site, "rollback_config"),
    endpoint: convertEndpoint(site),
  });
  for (const problem of validateServiceSpec(spec)) site.blame(problem);
  return { spec, open };
}

function convertVolumes(context: ConvertContext): Pick<StackSpec, "externalVolumes"> & { volumes: object[] } {
  const volumes: object[] = [];
  const externalVolumes: string[] = [];
  for (const [key, node] of entriesOf(child(context.file, "volumes"))) {
    if (key.startsWith("x-") && node.kind !== "map") continue;
    const name = scopedName(context.stack, key, textOf(child(node, "name")));
    if (flagOf(child(node, "external")) === true) {
      externalVolumes.push(name);
      continue;
    }
    const driver = child(node, "driver");
    const named = textOf(driver) ?? "";
    if (driver !== undefined && named !== "local" && named !== "") {
      context.findings.problem(
        driver.place,
        `${under("volumes", key)}.driver`,
        `${JSON.stringify(named)}: volume drivers are not supported, only local is`,
      );
    }
    const cluster = child(node, "x-cluster-spec");
    if (cluster !== undefined) {
      context.findings.problem(
        cluster.place,
        `${under("volumes", key)}.x-cluster-spec`,
        "cluster volumes are not supported",
      );
    }
    const labels = { ...recordOf(child(node, "labels")), [NAMESPACE_LABEL]: context.stack };
    const options = child(node, "driver_opts");
    if (name.includes("{{")) continue;
    const source = readVolumeOptions(recordOf(options));
    if (!source.ok && options)
      context.findings.problem(options.place, `${under("volumes", key)}.driver_opts`, source.problem);
    volumes.push({ name, labels, driver: named, options: recordOf(options) });
  }
  return { volumes, externalVolumes };
}
