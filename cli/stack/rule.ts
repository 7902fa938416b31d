/** The language in which the schema is written: what may stand at a place, what it becomes, how two files' values join. Data only. */
import type { Tree } from "./tree.ts";

export type ScalarType = "string" | "integer" | "number" | "boolean";

/** What a scalar must be. */
export interface ScalarRule {
  readonly types: readonly ScalarType[];
  readonly choices?: readonly string[];
  readonly min?: number;
  readonly max?: number;
  /** What is wrong with the text, or undefined. */
  readonly format?: (text: string) => string | undefined;
}

export interface ListRule {
  readonly item: Rule;
  /** Whether an item may stand but once. */
  readonly unique?: boolean;
}

export interface MapRule {
  readonly fields?: Readonly<Record<string, Rule>>;
  /** What stands under names that are the user's own. */
  readonly others?: Rule;
  /** Which names those may be. */
  readonly names?: RegExp;
  /** Whether `x-…` may stand here; what they hold is nobody's business. */
  readonly extensions?: boolean;
  readonly required?: readonly string[];
}

/** How a later file's value joins an earlier one's. Maps with named fields are joined field by field where nothing is said. */
export type MergeWay =
  | "replace"
  /** Lists: the later one's items after the earlier one's; what stands there already is not repeated. */
  | "append"
  /** Maps of the user's own names: the later one's entry counts whole. */
  | "entries"
  /** `logging`: options join only while the driver stays. */
  | "logging"
  /** Lists: items with the same key are one; then in the order of the keys. */
  | { readonly key: (item: Tree) => string; readonly order: (item: Tree) => string | number; readonly join: boolean };

/** What a short form becomes: it gets the checked node. */
export type Normalise = (node: Tree, site: Site) => Tree;

/** One place of the schema; what a node may be depends on its kind. */
export interface Rule {
  readonly scalar?: ScalarRule;
  readonly list?: ListRule;
  readonly map?: MapRule;
  /** Whether nothing may stand there, as in `default:`. */
  readonly nullable?: boolean;
  readonly normalise?: Normalise;
  readonly merge?: MergeWay;
  /** The form that both get when an earlier file has a list and a later one a map, or the other way round. */
  readonly align?: (node: Tree) => Tree;
  /** Whether false, 0, "" and what is empty are printed; Docker leaves them out where they mean what absence means. */
  readonly printEmpty?: boolean;
  /** `x-…`: taken as it is. */
  readonly anything?: boolean;
}

/** Where a normaliser works. */
export interface Site {
  /** The key under which the node stands. */
  readonly name: string;
  /** What relative paths are relative to. */
  readonly directory: string;
  /** The user's home, for `~`. */
  readonly home: string;
  problem(node: Tree, message: string): void;
  warn(node: Tree, message: string): void;
}
