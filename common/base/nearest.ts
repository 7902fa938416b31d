/** The nearest match for a mistyped word. Pure. */

/** The candidate with the fewest edits from `word`, if it is near enough to be what was meant. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const shortened = word.slice(0, 64);
  let best: string | undefined;
  let bestDistance = slipsIn(shortened) + 1;
  for (const candidate of candidates) {
    const begun = shortened.length >= PREFIX_LENGTH_MIN && candidate.startsWith(shortened);
    const distance = begun ? 1 : edits(shortened, candidate);
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** Shorter beginnings are those of half the words. */
const PREFIX_LENGTH_MIN = 3;

/** How many slips of the finger a word of that length may have: more of them, and it was another word. */
function slipsIn({ length }: string): number {
  return length < 4 ? 1 : length < 8 ? 2 : 3;
}

/** Levenshtein's distance with one row of memory. */
function edits(left: string, right: string): number {
  let row = Array.from({ length: right.length + 1 }, (_, index) => index);
  for (let i = 1; i <= left.length; i++) {
    const next = [i];
    for (let j = 1; j <= right.length; j++) {
      const substituted = (row[j - 1] ?? 0) + (left[i - 1] === right[j - 1] ? 0 : 1);
      next[j] = Math.min(substituted, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1);
    }
    row = next;
  }
  return row[right.length] ?? 0;
}
