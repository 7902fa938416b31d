import { randomBytes } from "node:crypto";

/** The only door to chance, so that one seed replays a run. */
export interface Random {
  /** A float in [0, 1). */
  next(): number;
}

/** Randomness from the kernel. */
export const systemRandom: Random = {
  next: () => (randomBytes(6).readUIntBE(0, 6) as number) / 2 ** 48,
};

/** A small, fast generator that repeats for the same seed (mulberry32). Not for secrets. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  return {
    next() {
      state = (state + 0x6d2b79f5) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 15), state | 1);
      mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
    },
  };
}

/** An integer in [0, bound). */
export function randomInteger(random: Random, bound: number): number {
  return Math.floor(random.next() * bound);
}

/** One of `items`, evenly; undefined for none. */
export function pick<T>(random: Random, items: readonly T[]): T | undefined {
  return items[randomInteger(random, items.length)];
}
