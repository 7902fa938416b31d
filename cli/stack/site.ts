/** One service while it is converted: its tree, where to complain, and the way back from a spec's field to the line it came from. */
import { resolve } from "node:path";
import type { FieldProblem } from "../../common/base/error.ts";
import type { Findings } from "./findings.ts";
import type { LayerContext } from "./layer.ts";
import { descend, isNull, type MapNode, type Place, type Tree, under } from "./tree.ts";

/** What a conversion stands on. */
export interface ConvertContext extends Pick<LayerContext, "findings" | "reader" | "variables" | "directory"> {
  /** The stack's name. */
  readonly stack: string;
  /** The whole file: what services refer to. */
  readonly file: MapNode;
}

/** Fields whose names in a spec (common/model/validate.ts) are not those of the file. */
const NAMES: readonly (readonly [RegExp, string])[] = [
  [/^container_labels/, "labels"],
  [/^labels/, "deploy.labels"],
  [/^command/, "entrypoint"],
  [/^args/, "command"],
  [/^hosts/, "extra_hosts"],
  [/^groups/, "group_add"],
  [/^resources\.reservations\.generic/, "deploy.resources.reservations.generic_resources"],
  [/^env\b/, "environment"],
  [
    /^(?=(?:update_config|rollback_config|restart_policy|resources|placement|replicas|mode|endpoint_mode)\b)/,
    "deploy.",
  ],
  [/^placement/, "deploy.placement"],
  [/^log-?driver/, "logging"],
];

/** A service on its way to a spec. */
export class ServiceSite {
  readonly key: string;
  readonly node: MapNode;
  readonly path: string;
  readonly context: ConvertContext;
  readonly #trail = new Map<string, { readonly node: Tree; readonly path: string }>();

  constructor(key: string, node: MapNode, context: ConvertContext) {
    this.key = key;
    this.node = node;
    this.path = under("services", key);
    this.context = context;
  }

  get findings(): Findings {
    return this.context.findings;
  }

  /** What stands at a path of the service; a null counts as absent. */
  at(...names: readonly string[]): Tree | undefined {
    return descend(this.node, ...names);
  }

  /** Refuses what stands at `node`, which the file has under `path`, relative to the service. */
  refuse(node: Tree, path: string, message: string): void {
    this.findings.problem(node.place, this.#full(path), message);
  }

  warn(node: Tree, path: string, message: string): void {
    this.findings.warn(node.place, this.#full(path), message);
  }

  /** Remembers that the spec's `field` was made of `node`. */
  note(field: string, node: Tree, path: string): void {
    this.#trail.set(field, { node, path });
  }

  /** Puts a problem of the spec where its author can mend it. */
  blame({ field, problem }: FieldProblem): void {
    if (field === "name") {
      this.findings.problem(this.node.place, this.path, problem);
      return;
    }
    for (let prefix = field; prefix !== ""; prefix = prefix.replace(/(?:^|\.|\[)[^.[]*$/, "")) {
      const noted = this.#trail.get(prefix);
      if (noted !== undefined) {
        const rest = field.slice(prefix.length).replace(/^\./, "");
        this.refuse(noted.node, noted.path, rest === "" ? problem : `${rest}: ${problem}`);
        return;
      }
    }
    const path = NAMES.reduce((text, [pattern, name]) => (text === field ? text.replace(pattern, name) : text), field);
    const { place, at } = this.#nearest(path);
    this.findings.problem(
      place,
      this.#full(at === "" ? path : at),
      at === path || at === "" ? problem : `${path}: ${problem}`,
    );
  }

  /** The deepest node of the file on the way to `path`. */
  #nearest(path: string): { readonly place: Place; readonly at: string } {
    let node: Tree = this.node;
    let at = "";
    for (const step of path.match(/[^.[\]]+|\[\d+\]/g) ?? []) {
      const index = /^\[(\d+)\]$/.exec(step)?.[1];
      const next: Tree | undefined =
        index === undefined
          ? node.kind === "map"
            ? node.entries.get(step)?.value
            : undefined
          : node.kind === "list"
            ? node.items[Number(index)]
            : undefined;
      if (next === undefined || isNull(next)) break;
      node = next;
      at = index === undefined ? under(at, step) : `${at}${step}`;
    }
    return { place: node.place, at };
  }

  #full(path: string): string {
    return path === "" ? this.path : `${this.path}${path.startsWith("[") ? "" : "."}${path}`;
  }
}

/** A path of the file as an absolute one. */
export function fromDirectory(path: string, { directory }: ConvertContext): string {
  return resolve(directory, path);
}

/** The name of a thing of the stack: its own, or the key with the stack's prefix. */
export function scopedName(stack: string, key: string, own: string | undefined): string {
  return own ?? `${stack}_${key}`;
}
