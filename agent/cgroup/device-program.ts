/**
 * The device policy of cgroup v2: a BPF_PROG_TYPE_CGROUP_DEVICE program, built here and loaded by the shim. The kernel
 * runs it at every open and mknod of a device with struct bpf_cgroup_dev_ctx { u32 access_type, major, minor } in r1 and
 * permits what it returns non-zero for. Instruction set: Documentation/bpf/standardization/instruction-set.rst.
 *
 *     prologue: r2 = type, r3 = access, r4 = major, r5 = minor
 *     per exception: differs? -> next one, else return the opposite of the default
 *     return the default
 */
import { ACCESS_ALL, type DeviceException, type DevicePolicy } from "./devices.ts";

const LOAD_WORD = 0x61; // BPF_LDX | BPF_W | BPF_MEM
const MOVE = 0xbf; // BPF_ALU64 | BPF_MOV | BPF_X
const MOVE_CONSTANT = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
const AND = 0x57; // BPF_ALU64 | BPF_AND | BPF_K
const SHIFT_RIGHT = 0x77; // BPF_ALU64 | BPF_RSH | BPF_K
const JUMP_EQUAL = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_NOT_EQUAL = 0x55; // BPF_JMP | BPF_JNE | BPF_K
const EXIT = 0x95;

const DEVICE_TYPE = { b: 1, c: 2 } as const;
const INSTRUCTION_BYTES = 8;

interface Instruction {
  readonly code: number;
  readonly destination?: number;
  readonly source?: number;
  readonly offset?: number;
  readonly constant?: number;
}

/** The program as an array of struct bpf_insn (little-endian, as both supported architectures are). */
export function deviceProgram(policy: DevicePolicy): Uint8Array {
  const instructions: Instruction[] = [
    { code: LOAD_WORD, destination: 2, source: 1, offset: 0 },
    { code: MOVE, destination: 3, source: 2 },
    { code: AND, destination: 2, constant: 0xffff },
    { code: SHIFT_RIGHT, destination: 3, constant: 16 },
    { code: LOAD_WORD, destination: 4, source: 1, offset: 4 },
    { code: LOAD_WORD, destination: 5, source: 1, offset: 8 },
    ...policy.exceptions.flatMap((exception) => exceptionBlock(exception, policy.allowByDefault)),
    ...returning(policy.allowByDefault),
  ];
  const bytes = new Uint8Array(instructions.length * INSTRUCTION_BYTES);
  const view = new DataView(bytes.buffer);
  for (const [index, { code, destination = 0, source = 0, offset = 0, constant = 0 }] of instructions.entries()) {
    const at = index * INSTRUCTION_BYTES;
    view.setUint8(at, code);
    view.setUint8(at + 1, (source << 4) | destination);
    view.setInt16(at + 2, offset, true);
    view.setInt32(at + 4, constant, true);
  }
  return bytes;
}

function exceptionBlock(exception: DeviceException, allowByDefault: boolean): readonly Instruction[] {
  const verdict = returning(!allowByDefault);
  const checks: Instruction[] = [
    { code: JUMP_NOT_EQUAL, destination: 2, constant: DEVICE_TYPE[exception.type] },
    ...accessCheck(exception.access, allowByDefault),
  ];
  if (exception.major !== undefined) checks.push({ code: JUMP_NOT_EQUAL, destination: 4, constant: exception.major });
  if (exception.minor !== undefined) checks.push({ code: JUMP_NOT_EQUAL, destination: 5, constant: exception.minor });
  const length = checks.length + verdict.length;
  const jumps = new Set([JUMP_EQUAL, JUMP_NOT_EQUAL]);
  const linked = checks.map((check, index) =>
    jumps.has(check.code) ? { ...check, offset: length - index - 1 } : check,
  );
  return [...linked, ...verdict];
}

/** An allowance covers a request only whole; a refusal hits it by any one bit. */
function accessCheck(access: number, allowByDefault: boolean): readonly Instruction[] {
  if (access === ACCESS_ALL) return [];
  const copy: Instruction = { code: MOVE, destination: 1, source: 3 };
  return allowByDefault
    ? [copy, { code: AND, destination: 1, constant: access }, { code: JUMP_EQUAL, destination: 1 }]
    : [copy, { code: AND, destination: 1, constant: ~access & ACCESS_ALL }, { code: JUMP_NOT_EQUAL, destination: 1 }];
}

function returning(allowed: boolean): readonly Instruction[] {
  return [{ code: MOVE_CONSTANT, destination: 0, constant: allowed ? 1 : 0 }, { code: EXIT }];
}
