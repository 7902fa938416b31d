/** What the head of a program says (elf(5)). */

/** elf(5): e_machine. */
export const MACHINES = { amd64: 0x3e, arm64: 0xb7 };

/** What a program is made for, and whether it needs a loader. Throws for what is none. */
export function elfOf(elf: Buffer): { readonly machine: number; readonly static: boolean } {
  if (elf.subarray(0, 4).toString("latin1") !== "\x7fELF") throw new Error("no ELF file");
  const headers = Array.from({ length: elf.readUInt16LE(56) }, (_, index) =>
    elf.readUInt32LE(Number(elf.readBigUInt64LE(32)) + index * elf.readUInt16LE(54)),
  );
  // PT_INTERP asks for a loader.
  return { machine: elf.readUInt16LE(18), static: !headers.includes(3) };
}
