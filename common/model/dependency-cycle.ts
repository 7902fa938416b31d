/** Services that wait for one another in a circle would wait for ever. Pure. */

/**
 * A circle in what waits for what, as the names along it with the first one again at the end; undefined when there is none.
 * Names that nothing is said of wait for nobody.
 */
export function findCycle(waitsFor: ReadonlyMap<string, readonly string[]>): readonly string[] | undefined {
  const done = new Set<string>();
  for (const start of waitsFor.keys()) {
    // Depth first without recursion: a hostile chain of thousands must not end the stack.
    const path: { readonly name: string; next: number }[] = [{ name: start, next: 0 }];
    const onPath = new Set([start]);
    while (path.length > 0) {
      const top = path.at(-1);
      if (top === undefined) break;
      const next = waitsFor.get(top.name)?.[top.next++];
      if (next === undefined || done.has(top.name)) {
        done.add(top.name);
        onPath.delete(top.name);
        path.pop();
      } else if (onPath.has(next)) {
        const names = path.map(({ name }) => name);
        return [...names.slice(names.indexOf(next)), next];
      } else if (!done.has(next)) {
        path.push({ name: next, next: 0 });
        onPath.add(next);
      }
    }
  }
  return undefined;
}
