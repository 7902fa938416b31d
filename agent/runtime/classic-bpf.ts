/**
 * A small assembler for classic BPF, the language of seccomp filters (struct sock_filter, include/uapi/linux/filter.h).
 *
 * A program is written from its end to its start: what an instruction leads to exists before the instruction does, so
 * every jump goes forward, as the kernel demands, and its distance is known at once.
 */
import { assert } from "../../common/base/error.ts";

/** An instruction already written, by its distance from the end of the program. */
export type BpfLabel = number;

/** The comparisons of A with a constant that classic BPF knows. */
export type BpfTest = "equal" | "greater" | "greaterOrEqual";

const LOAD_WORD = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP = 0x05; // BPF_JMP | BPF_JA
const RETURN = 0x06; // BPF_RET | BPF_K
const TESTS: Readonly<Record<BpfTest, number>> = { equal: 0x15, greater: 0x25, greaterOrEqual: 0x35 };

/** Conditional jumps have 8 bits. Some room is kept because making one target near pushes the other further away. */
const DISTANCE_MAX = 250;

const INSTRUCTION_BYTES = 8;

interface Instruction {
  readonly code: number;
  readonly jumpTrue: number;
  readonly jumpFalse: number;
  readonly constant: number;
}

/** A program in the making. Each method puts one instruction in front of what is there and returns its label. */
export class BpfProgram {
  /** Last instruction first. */
  readonly #instructions: Instruction[] = [];
  readonly #returns = new Map<number, BpfLabel>();

  /** Number of instructions so far. */
  get length(): number {
    return this.#instructions.length;
  }

  /** `return value`; one copy serves all jumps that are near enough. */
  return(value: number): BpfLabel {
    const known = this.#returns.get(value);
    if (known !== undefined && this.#distance(known) <= DISTANCE_MAX) return known;
    const label = this.#put(RETURN, 0, 0, value);
    this.#returns.set(value, label);
    return label;
  }

  /** A = the 32-bit word at `offset` of struct seccomp_data; goes on at `next`. */
  load(offset: number, next: BpfLabel): BpfLabel {
    this.#continueAt(next);
    return this.#put(LOAD_WORD, 0, 0, offset);
  }

  /** A = A & mask; goes on at `next`. */
  and(mask: number, next: BpfLabel): BpfLabel {
    this.#continueAt(next);
    return this.#put(AND, 0, 0, mask);
  }

  /** Goes to `yes` when A compares so with `constant` (unsigned), else to `no`. */
  test(test: BpfTest, constant: number, yes: BpfLabel, no: BpfLabel): BpfLabel {
    if (yes === no) return yes;
    const nearYes = this.#near(yes);
    const nearNo = this.#near(no);
    return this.#put(TESTS[test], this.#distance(nearYes), this.#distance(nearNo), constant);
  }

  /**
   * Finds A among ranges by halving: each entry says from which value on its label holds, up to the next entry. The
   * first entry must start at 0.
   */
  search(ranges: readonly { readonly from: number; readonly label: BpfLabel }[]): BpfLabel {
    const [first] = ranges;
    assert(first !== undefined, "a search needs a range");
    if (ranges.length === 1) return first.label;
    const middle = ranges.length >> 1;
    const upper = this.search(ranges.slice(middle));
    const lower = this.search(ranges.slice(0, middle));
    return this.test("greaterOrEqual", ranges[middle]?.from ?? 0, upper, lower);
  }

  /** The program from `start` on as an array of struct sock_filter, little-endian. `start` must be the newest label. */
  bytes(start: BpfLabel): Uint8Array {
    this.#continueAt(start);
    const bytes = new Uint8Array(this.length * INSTRUCTION_BYTES);
    const view = new DataView(bytes.buffer);
    for (const [index, { code, jumpTrue, jumpFalse, constant }] of this.#instructions.toReversed().entries()) {
      view.setUint16(index * INSTRUCTION_BYTES, code, true);
      view.setUint8(index * INSTRUCTION_BYTES + 2, jumpTrue);
      view.setUint8(index * INSTRUCTION_BYTES + 3, jumpFalse);
      view.setUint32(index * INSTRUCTION_BYTES + 4, constant, true);
    }
    return bytes;
  }

  /** How many instructions an instruction written now would have to skip to reach `label`. */
  #distance(label: BpfLabel): number {
    return this.length - label - 1;
  }

  #near(label: BpfLabel): BpfLabel {
    if (this.#distance(label) <= DISTANCE_MAX) return label;
    const target = this.#instructions[label];
    if (target?.code === RETURN) return this.return(target.constant);
    return this.#put(JUMP, 0, 0, this.#distance(label));
  }

  #continueAt(next: BpfLabel): void {
    if (this.#distance(next) > 0) this.#put(JUMP, 0, 0, this.#distance(next));
  }

  #put(code: number, jumpTrue: number, jumpFalse: number, constant: number): BpfLabel {
    return this.#instructions.push({ code, jumpTrue, jumpFalse, constant }) - 1;
  }
}
