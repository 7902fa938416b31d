/** A binary min-heap over a comparator; `less` must not change for an item while it lies in the heap. */
export class Heap<T> {
  readonly #items: T[] = [];
  readonly #less: (left: T, right: T) => boolean;

  constructor(less: (left: T, right: T) => boolean) {
    this.#less = less;
  }

  get size(): number {
    return this.#items.length;
  }

  push(item: T): void {
    const items = this.#items;
    let index = items.length;
    items.push(item);
    while (index > 0) {
      const parent = (index - 1) >> 1;
      const above = items[parent] as T;
      if (!this.#less(item, above)) break;
      items[index] = above;
      index = parent;
    }
    items[index] = item;
  }

  /** The least item, left where it is. */
  peek(): T | undefined {
    return this.#items[0];
  }

  pop(): T | undefined {
    const items = this.#items;
    const least = items[0];
    const last = items.pop();
    if (last !== undefined && items.length > 0) this.#sink(last);
    return least;
  }

  #sink(item: T): void {
    const items = this.#items;
    const count = items.length;
    let index = 0;
    while (true) {
      let child = 2 * index + 1;
      if (child >= count) break;
      if (child + 1 < count && this.#less(items[child + 1] as T, items[child] as T)) child++;
      const below = items[child] as T;
      if (!this.#less(below, item)) break;
      items[index] = below;
      index = child;
    }
    items[index] = item;
  }
}
