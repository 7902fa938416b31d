/** Stack files as the request that a deploy and a plan make of them: images pinned, logins added. */
import { create } from "@bufbuild/protobuf";
import { SwarmError } from "../../common/base/error.ts";
import type { ServiceView, StackRequest } from "../../proto/gen/swarm/v1/control_pb.js";
import { StackRequestSchema } from "../../proto/gen/swarm/v1/control_pb.js";
import type { ServiceSpec } from "../../proto/gen/swarm/v1/types_pb.js";
import type { ControlClient, Invocation } from "../command.ts";
import { addRegistryAuth } from "../commands/service-create.ts";
import type { FlagTable } from "../flags/parse.ts";
import { pinImages } from "../resolve-images.ts";
import { SilentFailure, UsageError } from "../usage-error.ts";
import { IMAGE_LABEL } from "./convert.ts";
import { NAMESPACE_LABEL } from "./convert-container.ts";
import { formatProblems } from "./findings.ts";
import { loadStack } from "./load.ts";
import { stackOptions } from "./options.ts";

const RESOLVE_IMAGE = ["always", "changed", "never"];

/** Flags of commands that read stack files for the cluster. */
export const STACK_FILE_FLAGS = {
  "compose-file": {
    kind: "list",
    short: "c",
    value: "strings",
    help: 'Path to a Compose file, or "-" to read from stdin',
  },
  profile: { kind: "list", value: "string", help: 'Profile whose services are on, "*" for all' },
  prune: { kind: "boolean", help: "Prune services that are no longer referenced" },
  "resolve-image": {
    kind: "text",
    value: "string",
    help: "Query the registry to resolve image digest and supported platforms: always, changed or never",
    default: "always",
    choices: RESOLVE_IMAGE,
  },
  "with-registry-auth": { kind: "boolean", help: "Send registry authentication details to Swarm agents" },
} as const satisfies FlagTable;

/** What is to be sent, and what of the stack there is. */
export interface LoadedRequest {
  readonly name: string;
  readonly request: StackRequest;
  /** The stack's services before the change. */
  readonly present: readonly ServiceView[];
  /** To be shown once the request is accepted. */
  readonly warnings: readonly string[];
}

/** Reads the files; every problem is said before anything is asked of the cluster. */
export async function loadRequest(invocation: Invocation): Promise<LoadedRequest> {
  const { flags, words, io, connect } = invocation;
  const mode = flags.text("resolve-image") ?? "always";
  if (!RESOLVE_IMAGE.includes(mode)) {
    throw new UsageError(`invalid argument ${JSON.stringify(mode)} for --resolve-image: always, changed or never`);
  }
  const { spec, unsetReplicas } = await readFiles(invocation, words[0]);
  if (flags.on("with-registry-auth")) for (const service of spec.services) addRegistryAuth(service, io);
  const client = await connect();
  const present = await servicesOfStack(client, spec.name);
  const unresolved = mode === "always" ? spec.services : keepImages(spec.services, present);
  const warnings = mode === "never" ? [] : await pinImages(client, unresolved, io);
  const request = create(StackRequestSchema, {
    spec,
    unsetReplicas: [...unsetReplicas],
    prune: flags.on("prune"),
  });
  return { name: spec.name, request, present, warnings };
}

/** The files as the stack that they say. */
export async function readFiles(invocation: Invocation, name: string | undefined) {
  const { io } = invocation;
  const loaded = loadStack({ ...(await stackOptions(invocation)), name });
  for (const warning of loaded.warnings) io.err(`warning: ${warning}\n`);
  if (loaded.ok) return loaded;
  io.err(formatProblems(loaded.problems));
  throw new SilentFailure("stack");
}

/** A stack's services, as its label says. */
export async function servicesOfStack(client: ControlClient, stack: string): Promise<ServiceView[]> {
  const { services } = await client.listServices({});
  return services.filter(({ spec }) => spec?.labels[NAMESPACE_LABEL] === stack);
}

/** The same, where there must be some. */
export async function requireStack(client: ControlClient, stack: string): Promise<ServiceView[]> {
  const services = await servicesOfStack(client, stack);
  if (services.length === 0) throw new SwarmError("not_found", `nothing found in stack: ${stack}`);
  return services;
}

/** A service whose file names the image that it was made of keeps what that stood for then (docker/cli deploy_composefile.go). */
function keepImages(services: readonly ServiceSpec[], present: readonly ServiceView[]): ServiceSpec[] {
  const byName = new Map(present.map(({ service, spec }) => [service?.name ?? "", spec] as const));
  return services.filter((spec) => {
    const before = byName.get(spec.name);
    const image = before?.task?.container?.image;
    const container = spec.task?.container;
    if (!image || !container || before.labels[IMAGE_LABEL] !== spec.labels[IMAGE_LABEL]) return true;
    container.image = image;
    return false;
  });
}
