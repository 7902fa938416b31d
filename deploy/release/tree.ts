/** A tree of files as it is to lie on a host. Pure; order, owners and times are decided where it is written. */

/** What stands at a path. Directories above files need no entry of their own. */
export type TreeEntry =
  | { readonly type: "file"; readonly mode: number; readonly content: Uint8Array }
  | { readonly type: "link"; readonly target: string };

/** Entries by path: no slash in front, none at the end. */
export type Tree = ReadonlyMap<string, TreeEntry>;

/** A file that everybody may read. */
export function file(content: string | Uint8Array, mode = 0o644): TreeEntry {
  return { type: "file", mode, content: typeof content === "string" ? Buffer.from(content) : content };
}

/** A file that everybody may run. */
export function program(content: string | Uint8Array): TreeEntry {
  return file(content, 0o755);
}

export function link(target: string): TreeEntry {
  return { type: "link", target };
}

/** The tree one folder down. */
export function under(folder: string, tree: Tree): Tree {
  return new Map([...tree].map(([path, entry]) => [`${folder}/${path}`, entry]));
}

/** Paths in the one order that every archive and list has them in. */
export function sorted(tree: Tree): readonly (readonly [path: string, entry: TreeEntry])[] {
  return [...tree].sort(([left], [right]) => (left < right ? -1 : 1));
}

/** The folders above all entries, each before what is in it. */
export function foldersOf(tree: Tree): readonly string[] {
  const folders = new Set<string>();
  for (const path of tree.keys()) {
    const parts = path.split("/").slice(0, -1);
    for (let depth = 1; depth <= parts.length; depth += 1) folders.add(parts.slice(0, depth).join("/"));
  }
  return [...folders].sort();
}

/** Bytes of all files. */
export function bytesOf(tree: Tree): number {
  return [...tree.values()].reduce((sum, entry) => sum + (entry.type === "file" ? entry.content.length : 0), 0);
}
