/** A stack's plan for people: what comes (+), changes (~), goes (-) or stays (=), field by field. Pure. */
import { escapeControls } from "../../common/model/text.ts";
import {
  type FieldChange,
  type ObjectPlan,
  ObjectPlan_Action,
  type PlacementPreview,
  type StackPlan,
} from "../../proto/gen/swarm/v1/control_pb.js";

interface ActionWords {
  readonly sign: string;
  readonly words: string;
  /** The terminal's colour. */
  readonly colour: number;
}

const ACTIONS: Readonly<Record<ObjectPlan_Action, ActionWords>> = {
  [ObjectPlan_Action.CREATE]: { sign: "+", words: "create", colour: 32 },
  [ObjectPlan_Action.REPLACE_TASKS]: { sign: "~", words: "replace tasks", colour: 33 },
  [ObjectPlan_Action.UPDATE_IN_PLACE]: { sign: "~", words: "update in place", colour: 33 },
  [ObjectPlan_Action.REMOVE]: { sign: "-", words: "remove", colour: 31 },
  [ObjectPlan_Action.KEEP]: { sign: "=", words: "keep (no longer in the file; --prune removes it)", colour: 0 },
  [ObjectPlan_Action.UNCHANGED]: { sign: "=", words: "unchanged", colour: 0 },
};

/** With `--prune`: services have been using it until now, and go back to it when their update fails. */
const KEPT_BY_PRUNE =
  "keep (no longer in the file; needed until the services have changed: the next --prune removes it)";

/** Longer values would hide the rest. */
const VALUE_LENGTH_MAX = 80;
/** Twelve digits tell digests apart, as they do ids. */
const DIGEST = /(@sha256:[0-9a-f]{12})[0-9a-f]{52}/g;

/** Whether carrying out the plan would change anything. */
export function planChanges({ objects }: StackPlan): boolean {
  return objects.some(({ action }) => action !== ObjectPlan_Action.UNCHANGED && action !== ObjectPlan_Action.KEEP);
}

interface PlanOptions {
  readonly colours: boolean;
  /** Whether the plan is of a deploy with `--prune`. */
  readonly prune: boolean;
}

/** The whole plan, a line per object and per field. */
export function renderPlan(plan: StackPlan, options: PlanOptions): string {
  const width = Math.max(0, ...plan.objects.map(({ kind, name }) => kind.length + 1 + name.length));
  const lines = plan.objects.flatMap((object) => objectLines(object, width, options));
  return [...lines, summary(plan), ""].join("\n");
}

function objectLines(object: ObjectPlan, width: number, { colours, prune }: PlanOptions): string[] {
  const { sign, colour, ...usual } = ACTIONS[object.action];
  const words = prune && object.action === ObjectPlan_Action.KEEP ? KEPT_BY_PRUNE : usual.words;
  const head = `${sign} ${escapeControls(`${object.kind} ${object.name}`).padEnd(width)}   ${words}`;
  const painted = colours && colour > 0 ? `\u001b[${colour}m${head}\u001b[0m` : head;
  const placement = object.placement ? placementLines(object.placement) : [];
  return [painted, ...object.changes.map(changeLine), ...placement];
}

function changeLine({ path, before, after }: FieldChange): string {
  const text =
    before === undefined
      ? shown(after)
      : after === undefined
        ? `${shown(before)} -> (none)`
        : `${shown(before)} -> ${shown(after)}`;
  return `    ${escapeControls(path)}: ${text}`;
}

function placementLines({ nodes, unplaced, explanation }: PlacementPreview): string[] {
  const places = nodes.map(({ nodeHostname, tasks }) => `${tasks} on ${escapeControls(nodeHostname)}`);
  return [
    ...(places.length > 0 ? [`    placement: ${places.join(", ")}`] : []),
    ...(unplaced > 0n ? [`    cannot place ${unplaced}: ${escapeControls(explanation)}`] : []),
  ];
}

function summary({ objects, stack }: StackPlan): string {
  const count = (...actions: ObjectPlan_Action[]) => objects.filter(({ action }) => actions.includes(action)).length;
  const { CREATE, REPLACE_TASKS, UPDATE_IN_PLACE, REMOVE, UNCHANGED, KEEP } = ObjectPlan_Action;
  const parts = [
    `${count(CREATE)} to create`,
    `${count(REPLACE_TASKS)} to replace`,
    `${count(UPDATE_IN_PLACE)} to update in place`,
    `${count(REMOVE)} to remove`,
    `${count(UNCHANGED, KEEP)} unchanged`,
  ];
  return `stack ${escapeControls(stack)}: ${parts.join(", ")}`;
}

function shown(value: string | undefined): string {
  const text = escapeControls((value ?? "").replace(DIGEST, "$1"));
  if (text === "") return '""';
  return text.length > VALUE_LENGTH_MAX ? `${text.slice(0, VALUE_LENGTH_MAX - 1)}…` : text;
}
