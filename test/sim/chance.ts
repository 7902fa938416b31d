/** Draws from a seed: the words in which a simulation decides what happens. */
import { type Random, randomInteger, seededRandom } from "../../common/base/random.ts";

/** True with the given probability. */
export function chance(random: Random, probability: number): boolean {
  return random.next() < probability;
}

/** A float in [least, most). */
export function between(random: Random, least: number, most: number): number {
  return least + random.next() * (most - least);
}

/** An integer in [least, most]. */
export function integerBetween(random: Random, least: number, most: number): number {
  return least + randomInteger(random, most - least + 1);
}

/** A generator of its own, so that what one part draws does not shift what another one draws. */
export function fork(random: Random): Random {
  return seededRandom(Math.floor(random.next() * 2 ** 32));
}
