/**
 * Templates in a task's hostname, environment and mounts: `{{.Node.Hostname}}`, `{{index .Service.Labels "tier"}}`
 * (docs.docker.com: "Create services using templates"). They are checked when the service is created and expanded by the
 * agent that runs the task.
 */
import type { ContainerSpec, Mount } from "../../proto/gen/swarm/v1/types_pb.js";
import { parseTemplate } from "./go-template.ts";
import { templateFailure, textOf } from "./go-template-values.ts";
import { taskName } from "./names.ts";
import { bad, good, type Parsed } from "./parsed.ts";

/** What a template may name. */
export interface TemplateContext {
  readonly serviceId: string;
  readonly serviceName: string;
  readonly serviceLabels: Readonly<Record<string, string>>;
  readonly nodeId: string;
  readonly nodeHostname: string;
  readonly nodeArchitecture: string;
  readonly nodeOs: string;
  readonly taskId: string;
  /** From 1; 0 for global services, whose slot is their node. */
  readonly slot: number;
}

/** Any context will do to find out whether a template can be expanded. */
const SAMPLE: TemplateContext = {
  serviceId: "s",
  serviceName: "service",
  serviceLabels: {},
  nodeId: "n",
  nodeHostname: "node",
  nodeArchitecture: "x86_64",
  nodeOs: "linux",
  taskId: "t",
  slot: 1,
};

/** Functions beyond Go's own (swarmkit template/template.go): `join SEPARATOR TEXT…`. */
const FUNCTIONS = {
  join: (separator: unknown, ...texts: readonly unknown[]) =>
    texts.map((text) => textOf(text, "join")).join(textOf(separator, "join")),
};

/** Expands one text; text without `{{` is itself. */
export function expandTemplate(text: string, context: TemplateContext): Parsed<string> {
  if (!text.includes("{{")) return good(text);
  const template = parseTemplate(text, FUNCTIONS);
  return template.ok ? template.value.execute(dataOf(context)) : template;
}

/** What a template of a secret's or config's content may call (swarmkit template/context.go). */
export interface ContentFunctions {
  /** A secret's content by the name of its target; undefined: the task has none of that name. */
  secret(name: string): string | undefined;
  config(name: string): string | undefined;
  /** A variable of the container's environment; empty when it is not set. */
  env(name: string): string;
}

/** Expands the content of a secret or config whose template driver is `golang`. */
export function expandContent(text: string, context: TemplateContext, functions: ContentFunctions): Parsed<string> {
  if (!text.includes("{{")) return good(text);
  const find = (kind: "secret" | "config") => (name: unknown) => {
    const wanted = textOf(name, kind);
    const found = functions[kind](wanted);
    if (found === undefined) throw templateFailure(`${kind} target ${wanted} not found`);
    return found;
  };
  const all = {
    ...FUNCTIONS,
    secret: find("secret"),
    config: find("config"),
    env: (name: unknown) => functions.env(textOf(name, "env")),
  };
  const template = parseTemplate(text, all);
  return template.ok ? template.value.execute(dataOf(context)) : template;
}

/** What is wrong with a template, or undefined. */
export function templateProblem(text: string): string | undefined {
  const expanded = expandTemplate(text, SAMPLE);
  return expanded.ok ? undefined : expanded.problem;
}

/** A container spec with every template expanded: hostname, values of the environment, mounts. */
export function expandContainerSpec(spec: ContainerSpec, context: TemplateContext): Parsed<ContainerSpec> {
  const problems: string[] = [];
  const expand = (text: string): string => {
    const expanded = expandTemplate(text, context);
    if (expanded.ok) return expanded.value;
    problems.push(expanded.problem);
    return "";
  };
  const expandAll = (record: Readonly<Record<string, string>>) =>
    Object.fromEntries(Object.entries(record).map(([key, value]) => [key, expand(value)]));
  const expandMount = (mount: Mount): Mount => ({
    ...mount,
    source: expand(mount.source),
    target: expand(mount.target),
    volumeOptions: expandAll(mount.volumeOptions),
    volumeLabels: expandAll(mount.volumeLabels),
  });
  const expanded: ContainerSpec = {
    ...spec,
    hostname: expand(spec.hostname),
    env: spec.env.map((variable) => expandVariable(variable, expand)),
    mounts: spec.mounts.map(expandMount),
  };
  const [problem] = problems;
  return problem === undefined ? good(expanded) : bad(problem);
}

/** Only the value is a template, never the name. */
function expandVariable(variable: string, expand: (text: string) => string): string {
  const equals = variable.indexOf("=");
  return equals < 0 ? variable : `${variable.slice(0, equals)}=${expand(variable.slice(equals + 1))}`;
}

function dataOf(context: TemplateContext): unknown {
  const task = { id: context.taskId, slot: context.slot, nodeId: context.nodeId };
  return {
    Service: {
      ID: context.serviceId,
      Name: context.serviceName,
      Labels: Object.assign(Object.create(null), context.serviceLabels),
    },
    Node: {
      ID: context.nodeId,
      Hostname: context.nodeHostname,
      Platform: { Architecture: context.nodeArchitecture, OS: context.nodeOs },
    },
    Task: {
      ID: context.taskId,
      Name: taskName(context.serviceName, task),
      Slot: context.slot > 0 ? String(context.slot) : context.nodeId,
    },
  };
}
