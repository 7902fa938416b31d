/** Live names for completion: what there is now, by the word that a usage text has for it. */
import { familiarName, parseImageReference } from "../common/model/image-reference.ts";
import { slotName } from "../common/model/names.ts";
import type { ControlClient } from "./command.ts";
import type { Candidate } from "./complete.ts";
import { ContextStore, configFolder, DEFAULT_CONTEXT } from "./contexts.ts";
import type { Io } from "./io.ts";
import { nodeStateName } from "./output/node-words.ts";
import { shortImage } from "./output/words.ts";

/** Names of what `noun` (SERVICE, NODE, …) stands for; none for a word that names nothing. */
export type LiveNames = (noun: string) => Promise<readonly Candidate[]>;

export const CONTEXT_NOUN = "CONTEXT";

/** Docker's label on what belongs to a stack. */
const NAMESPACE = "com.docker.stack.namespace";

/** Asks the manager, and the disk for contexts. */
export function liveNames(io: Io, connect: () => Promise<ControlClient>): LiveNames {
  return async (noun) => {
    switch (noun) {
      case CONTEXT_NOUN:
        return contexts(io);
      case "SERVICE":
        return await services(await connect());
      case "TASK":
        return await tasks(await connect());
      case "NODE":
        return await nodes(await connect());
      case "STACK":
        return await stacks(await connect());
      case "IMAGE":
        return await images(await connect());
      case "SECRET":
      case "CONFIG":
      case "VOLUME":
      case "NETWORK":
      case "USER":
        return await named(await connect(), noun);
      default:
        return [];
    }
  };
}

function contexts(io: Io): readonly Candidate[] {
  const stored = new ContextStore(configFolder(io)).list();
  return [
    { word: DEFAULT_CONTEXT, about: "" },
    ...stored.map(({ name, description }) => ({ word: name, about: description })),
  ];
}

async function services(client: ControlClient): Promise<readonly Candidate[]> {
  const { services: views } = await client.listServices({});
  return views.map(({ service, spec }) => ({
    word: service?.name ?? "",
    about: shortImage(spec?.task?.container?.image ?? ""),
  }));
}

async function tasks(client: ControlClient): Promise<readonly Candidate[]> {
  const { tasks: views } = await client.listTasks({});
  const names = views.flatMap((view) => (view.task ? [slotName(view.serviceName, view.task)] : []));
  return [...new Set(names)].map((word) => ({ word, about: "" }));
}

async function nodes(client: ControlClient): Promise<readonly Candidate[]> {
  const { nodes: all } = await client.listNodes({});
  return all.map((node) => ({ word: node.description?.hostname ?? node.id, about: nodeStateName(node) }));
}

async function stacks(client: ControlClient): Promise<readonly Candidate[]> {
  const { services: views } = await client.listServices({});
  const names = views.flatMap(({ spec }) => spec?.labels[NAMESPACE] ?? []);
  return [...new Set(names)].map((word) => ({ word, about: "" }));
}

async function images(client: ControlClient): Promise<readonly Candidate[]> {
  const { images: all } = await client.listImages({});
  return all.flatMap(({ names }) =>
    names.map((name) => {
      const parsed = parseImageReference(name);
      return { word: parsed.ok ? familiarName(parsed.reference) : name, about: "" };
    }),
  );
}

/** Objects whose list call is named after them and whose elements have a name. */
async function named(client: ControlClient, noun: string): Promise<readonly Candidate[]> {
  const plural = `${noun.toLowerCase()}s`;
  const method = `list${noun.slice(0, 1)}${plural.slice(1)}`;
  const call: unknown = Reflect.get(client, method);
  if (typeof call !== "function") return [];
  const answer: unknown = await call({});
  const list: unknown = typeof answer === "object" && answer !== null ? Reflect.get(answer, plural) : undefined;
  return Array.isArray(list) ? list.flatMap((each) => nameOf(each, noun.toLowerCase())) : [];
}

/** `{name}`, or `{secret: {name}}`. */
function nameOf(element: unknown, noun: string): readonly Candidate[] {
  if (typeof element !== "object" || element === null) return [];
  const name: unknown = Reflect.get(element, "name");
  if (typeof name === "string" && name !== "") return [{ word: name, about: "" }];
  const inner: unknown = Reflect.get(element, noun);
  return inner === undefined ? [] : nameOf(inner, noun);
}
