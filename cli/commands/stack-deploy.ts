import { SwarmError } from "../../common/base/error.ts";
import { escapeControls } from "../../common/model/text.ts";
import {
  type ApplyStackResponse,
  ObjectPlan_Action,
  type ServiceView,
  type StackBase,
} from "../../proto/gen/swarm/v1/control_pb.js";
import type { Command, ControlClient, Invocation } from "../command.ts";
import type { WaitTarget } from "../followed.ts";
import { type PlanFile, readPlanFile } from "../stack/plan-file.ts";
import { type LoadedRequest, loadRequest, readFiles, STACK_FILE_FLAGS, servicesOfStack } from "../stack/request.ts";
import { FAILED, TIMED_OUT, waitForStack } from "../stack-wait.ts";
import { UsageError } from "../usage-error.ts";
import { endedTasks } from "../wait.ts";
import { addRegistryAuth } from "./service-create.ts";
import { PLAN_FLAGS, showPlan } from "./stack-plan.ts";

export const STACK_WAIT_FLAGS = {
  detach: {
    kind: "boolean",
    short: "d",
    help: "Exit immediately instead of waiting for the stack services to converge",
  },
  quiet: { kind: "boolean", short: "q", help: "Suppress progress output" },
  timeout: {
    kind: "text",
    value: "duration",
    help: "Give up waiting after this time with exit code 3; the change stays",
    default: "10m",
  },
} as const;

/** Five hundred services take a second or two; on a slow store, more. */
const APPLY_TIMEOUT_MS = 60_000;

export const command: Command = {
  usage: "stack deploy [OPTIONS] [STACK]",
  summary: "Deploy a new stack or update an existing stack",
  flags: {
    ...STACK_FILE_FLAGS,
    ...STACK_WAIT_FLAGS,
    ...PLAN_FLAGS,
    "dry-run": { kind: "boolean", help: "Show what would change, as stack plan does" },
    plan: { kind: "text", value: "file", help: "Apply a plan of stack plan --out, unless the cluster has moved on" },
    "rollback-on-failure": {
      kind: "boolean",
      help: "When the stack does not converge, go back to the revision before",
    },
  },
  words: { min: 0, max: 1 },
  run,
};

async function run(invocation: Invocation): Promise<number> {
  const { flags, io, connect } = invocation;
  if (flags.on("dry-run")) {
    if (flags.has("plan")) throw new UsageError("conflicting options: --dry-run and --plan");
    return await showPlan(invocation);
  }
  for (const name of ["out", "format"]) if (flags.has(name)) throw new UsageError(`--${name} needs --dry-run`);
  const client = await connect();
  const { base, ...loaded } = flags.has("plan") ? await fromPlan(invocation, client) : await fromFiles(invocation);
  const { request, present, warnings } = loaded;
  const before = await endedBefore(invocation, client, present);
  const answer = await client.applyStack(
    { stack: request, ...(base ? { base } : {}) },
    { timeoutMs: APPLY_TIMEOUT_MS },
  );
  io.err(warnings.join(""));
  if (!flags.on("quiet")) announce(invocation, answer);
  if (request.prune) sayKept(invocation, answer);
  const applied: Applied = { stack: loaded.name, answer, present, before };
  return await settle(invocation, applied);
}

type Loaded = LoadedRequest & { readonly base?: StackBase };

async function fromFiles(invocation: Invocation): Promise<Loaded> {
  return await loadRequest(invocation);
}

/** What was planned, or nothing: the base tells the manager what it was planned against. */
async function fromPlan(invocation: Invocation, client: ControlClient): Promise<Loaded> {
  const { flags, words, io } = invocation;
  for (const name of ["prune", "resolve-image"]) {
    if (flags.has(name)) throw new UsageError(`conflicting options: --plan and --${name}: the plan says it`);
  }
  const path = flags.text("plan") ?? "";
  const { request, plan } = readPlanFile(path, io.readFile(path));
  const [given] = words;
  if (given !== undefined && given !== plan.stack) {
    throw new UsageError(`--plan ${path} is of stack ${plan.stack}, not of ${given}`);
  }
  if (request.spec?.secrets.length) await fillSecrets(invocation, client, { path, request, plan });
  if (flags.on("with-registry-auth")) for (const spec of request.spec?.services ?? []) addRegistryAuth(spec, io);
  const present = await servicesOfStack(client, plan.stack);
  return { name: plan.stack, request, present, warnings: [], ...(plan.base ? { base: plan.base } : {}) };
}

/** A plan does not hold what secrets hold: that is read from the files again, and must be what was planned. */
async function fillSecrets(
  invocation: Invocation,
  client: ControlClient,
  { path, request, plan }: PlanFile & { readonly path: string },
): Promise<void> {
  if (!invocation.flags.has("compose-file")) {
    throw new UsageError(
      `--plan ${path}: what the stack's secrets hold is not in it: name its files, too (--compose-file)`,
    );
  }
  const { spec } = await readFiles(invocation, plan.stack);
  const contents = new Map(spec.secrets.map(({ name, data }) => [name, data] as const));
  for (const secret of request.spec?.secrets ?? []) {
    const data = contents.get(secret.name);
    if (data === undefined) throw new UsageError(`--plan ${path}: the files have no secret ${secret.name}`);
    secret.data = data;
  }
  const now = (await client.planStack({ stack: request })).plan?.objects ?? [];
  for (const { kind, name, action } of plan.objects) {
    if (kind !== "secret" || now.some((each) => each.kind === kind && each.name === name && each.action === action))
      continue;
    throw new SwarmError(
      "aborted",
      `the plan for stack ${plan.stack} is out of date: secret ${name} has changed; plan again`,
    );
  }
}

const WORDS: Partial<Record<ObjectPlan_Action, string>> = {
  [ObjectPlan_Action.CREATE]: "Creating",
  [ObjectPlan_Action.REPLACE_TASKS]: "Updating",
  [ObjectPlan_Action.UPDATE_IN_PLACE]: "Updating",
  [ObjectPlan_Action.REMOVE]: "Removing",
};

/** Docker's words for what is done; what stays as it is is not worth a line. */
function announce({ io }: Invocation, { plan }: ApplyStackResponse): void {
  const done = plan?.objects.flatMap(({ kind, name, action }) => {
    const word = WORDS[action];
    return word === undefined ? [] : [`${word} ${kind} ${escapeControls(name)}\n`];
  });
  io.out(
    done === undefined || done.length === 0
      ? `Stack ${escapeControls(plan?.stack ?? "")} is unchanged\n`
      : done.join(""),
  );
}

/** What services have been using until now waits for the next deploy: an update that fails goes back to it. */
function sayKept({ io }: Invocation, { plan }: ApplyStackResponse): void {
  const kept = (plan?.objects ?? []).filter(({ action }) => action === ObjectPlan_Action.KEEP);
  if (kept.length === 0) return;
  const names = kept.map(({ kind, name }) => escapeControls(`${kind} ${name}`)).join(", ");
  io.err(`kept until the next deploy with --prune, since services may go back to them: ${names}\n`);
}

interface Applied {
  readonly stack: string;
  readonly answer: ApplyStackResponse;
  readonly present: readonly ServiceView[];
  readonly before: ReadonlySet<string>;
}

/** Waits for what was applied; goes back where that was asked for. */
async function settle(invocation: Invocation, { stack, answer, before }: Applied): Promise<number> {
  const { flags, io } = invocation;
  if (flags.on("detach")) return 0;
  const code = await waitForStack(invocation, { stack, targets: targetsOf(answer, false), before });
  if (!flags.on("rollback-on-failure") || (code !== FAILED && code !== TIMED_OUT)) return code;
  const revision = answer.stack?.revision ?? 0n;
  const changed = answer.plan?.objects.some(({ action }) => WORDS[action] !== undefined) ?? false;
  if (!changed || revision <= 1n) {
    const why = changed ? "it is the stack's first revision" : "this deploy changed nothing";
    io.err(`swarmctl: stack ${escapeControls(stack)}: nothing to roll back to: ${why}\n`);
    return code;
  }
  io.err(`swarmctl: stack ${escapeControls(stack)}: rolling back to revision ${revision - 1n}\n`);
  const undone = await rollBack(invocation, stack, revision - 1n);
  if (undone !== 0) io.err(`swarmctl: stack ${escapeControls(stack)}: the rollback has not converged either\n`);
  return code;
}

/** Goes back to a revision (0: the one before) and waits; answers the exit code. */
export async function rollBack(invocation: Invocation, stack: string, to: bigint): Promise<number> {
  const client = await invocation.connect();
  const present = await servicesOfStack(client, stack);
  const before = await endedBefore(invocation, client, present);
  const answer = await client.rollbackStack({ name: stack, to }, { timeoutMs: APPLY_TIMEOUT_MS });
  if (!invocation.flags.on("quiet")) announce(invocation, answer);
  if (invocation.flags.on("detach")) return 0;
  return await waitForStack(invocation, { stack, targets: targetsOf(answer, true), before });
}

/** Tasks that had ended before; who does not wait need not know. */
async function endedBefore({ flags }: Invocation, client: ControlClient, present: readonly ServiceView[]) {
  if (flags.on("detach")) return new Set<string>();
  return await endedTasks(client, ...present.map(({ service }) => service?.id ?? ""));
}

function targetsOf({ plan, services }: ApplyStackResponse, rollback: boolean): WaitTarget[] {
  const actions = new Map(plan?.objects.map(({ kind, name, action }) => [`${kind} ${name}`, action] as const));
  if (plan === undefined) throw new SwarmError("internal", "the manager's answer has no plan");
  return services.map(({ id, name, specVersion }) => ({
    serviceId: id,
    name,
    specVersion,
    rollback,
    unchanged: actions.get(`service ${name}`) === ObjectPlan_Action.UNCHANGED,
  }));
}
