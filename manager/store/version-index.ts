import type { VersionKind } from "./kinds.ts";

/** Which versions each parent has, oldest first: of a service's spec, a secret's content, a stack. */
export class VersionIndex {
  readonly #versions = new Map<string, bigint[]>();

  /** `id` is a stored version's: the parent's id, a slash, the version. */
  add(kind: VersionKind, id: string): void {
    const { parent, version } = split(kind, id);
    const versions = this.#versions.get(parent);
    if (versions === undefined) this.#versions.set(parent, [version]);
    else if (!versions.includes(version))
      versions.splice(versions.findLastIndex((each) => each < version) + 1, 0, version);
  }

  delete(kind: VersionKind, id: string): void {
    const { parent, version } = split(kind, id);
    const versions = this.#versions.get(parent)?.filter((each) => each !== version) ?? [];
    if (versions.length > 0) this.#versions.set(parent, versions);
    else this.#versions.delete(parent);
  }

  of(kind: VersionKind, parentId: string): readonly bigint[] {
    return this.#versions.get(`${kind}/${parentId}`) ?? [];
  }
}

function split(kind: VersionKind, id: string): { readonly parent: string; readonly version: bigint } {
  const slash = id.indexOf("/");
  return { parent: `${kind}/${id.slice(0, slash)}`, version: BigInt(id.slice(slash + 1)) };
}
