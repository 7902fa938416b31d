/** Things worth telling of which there may be any number, when they come from a stranger: the first few, and how many more. */
export class FirstFew {
  readonly #countMax: number;
  #waiting: string[] = [];
  #count = 0;

  /** `countMax`: how many are told one by one. */
  constructor(countMax: number) {
    this.#countMax = countMax;
  }

  add(text: string): void {
    this.#count += 1;
    if (this.#count <= this.#countMax) this.#waiting.push(text);
  }

  /** What is to be told since the last call. */
  take(): readonly string[] {
    const taken = this.#waiting;
    this.#waiting = [];
    return taken;
  }

  /** The same, and how many were not told, in `words` ("more like these"). For the end. */
  takeAll(words: string): readonly string[] {
    const more = this.#count - this.#countMax;
    return more > 0 ? [...this.take(), `${more} ${words}`] : this.take();
  }
}
