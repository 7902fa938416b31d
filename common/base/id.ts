import type { Random } from "./random.ts";

declare const brand: unique symbol;

/** A string that only counts as an id of its own kind; `as` makes one at decoders, `newId` elsewhere. */
export type Branded<Kind extends string> = string & { readonly [brand]: Kind };

export type ServiceId = Branded<"service">;
export type TaskId = Branded<"task">;
export type NodeId = Branded<"node">;
export type ManagerId = Branded<"manager">;
export type SessionId = Branded<"session">;
export type ClusterId = Branded<"cluster">;

const ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz";
const ID_LENGTH = 25;

/** A new id in SwarmKit's form: 25 characters of base 36, about 129 bits. */
export function newId<Id extends Branded<string>>(random: Random): Id {
  let id = "";
  for (let index = 0; index < ID_LENGTH; index++) id += ALPHABET[Math.floor(random.next() * ALPHABET.length)];
  return id as Id;
}

/** Whether `text` has the form of an id. Ids become path and cgroup names, so nothing else may pass. */
export function isId(text: string): boolean {
  return /^[a-z0-9]{25}$/.test(text);
}
