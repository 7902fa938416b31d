/**
 * Which client meets whom where clients are to meet the same target again: a hash of the client's address names a slot, and
 * slots are dealt to targets as Google's Maglev does (Eisenbud et al., NSDI 2016, §3.4). Every target has as many slots as
 * any other, give or take one, all hosts deal alike, and when a target comes or goes few slots but its own change hands.
 */

/** Primes, so that each target's steps through the slots meet all of them. */
const COUNTS = [251, 1_021, 4_093, 16_381] as const;
const COUNT_MAX = 65_521;
/** As many slots for each target, up to 3,276 of them: the more, the fewer change hands needlessly. */
const SLOTS_PER_TARGET = 20;

/** How many slots that many targets share. */
export function slotCount(targets: number): number {
  return COUNTS.find((each) => each >= targets * SLOTS_PER_TARGET) ?? COUNT_MAX;
}

/** The target of each slot. `nameOf` tells targets apart; their order does not matter. At least one. */
export function slotsOf<T>(targets: readonly T[], nameOf: (target: T) => string): readonly T[] {
  const count = slotCount(targets.length);
  const players = targets
    .map((target) => ({ target, name: nameOf(target) }))
    .sort((one, other) => (one.name < other.name ? -1 : 1))
    .map(({ target, name }) => ({ target, next: hash(name, 1) % count, step: 1 + (hash(name, 2) % (count - 1)) }));
  const slots: T[] = new Array(count);
  for (let taken = 0; taken < count; ) {
    for (const player of players.slice(0, count - taken)) {
      while (slots[player.next] !== undefined) player.next = (player.next + player.step) % count;
      slots[player.next] = player.target;
      taken++;
    }
  }
  return slots;
}

/** FNV-1a, its bits mixed as MurmurHash3 ends. */
function hash(text: string, seed: number): number {
  let value = 0x811c9dc5 ^ seed;
  for (let index = 0; index < text.length; index++) value = Math.imul(value ^ text.charCodeAt(index), 0x01000193);
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
  return (value ^ (value >>> 16)) >>> 0;
}
