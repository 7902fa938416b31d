import { randomBytes } from "node:crypto";

/** The only door to chance, so that one seed replays a run. */
export interface Random {
  /** A float in [0, 1). */
  next(): number;
}

/** Bytes fetched from the kernel at once: a call for each number made ids cost 80 µs. */
const POOL_BYTES = 6 * 1024;

/** Randomness from the kernel. */
export const systemRandom: Random = openSystemRandom();

function openSystemRandom(): Random {
  let pool = Buffer.alloc(0);
  let offset = 0;
  return {
    next() {
      if (offset >= pool.length) {
        pool = randomBytes(POOL_BYTES);
        offset = 0;
      }
      const value = pool.readUIntBE(offset, 6);
      offset += 6;
      return value / 2 ** 48;
    },
  };
}

/** Where the bytes of keys and nonces come from: the kernel, or a seed. */
export type Entropy = (count: number) => Uint8Array;

/** Bytes for keys and nonces, from the kernel. */
export function systemEntropy(count: number): Uint8Array {
  return randomBytes(count);
}

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

/** `count` bytes out of `random`: for simulations, never for real keys. */
export function randomEntropy(random: Random, count: number): Uint8Array {
  return Uint8Array.from({ length: count }, () => randomInteger(random, 256));
}

/** One of `items`, evenly; undefined for none. */
export function pick<T>(random: Random, items: readonly T[]): T | undefined {
  return items[randomInteger(random, items.length)];
}

/** The same items in an even order of chance. */
export function shuffled<T>(random: Random, items: readonly T[]): readonly T[] {
  return items
    .map((item) => ({ item, place: random.next() }))
    .sort((left, right) => left.place - right.place)
    .map(({ item }) => item);
}
