/**
 * The block controller, which here only counts: what the kernel says that a container read from disks and wrote to them.
 * Sources: Documentation/admin-guide/cgroup-v1/blkio-controller.rst and cgroup-v2.rst "IO Interface Files".
 */

/** Bytes since the container began, over all devices. v1 does not see what the page cache writes later. */
export interface BlockBytes {
  readonly readBytes: number;
  readonly writeBytes: number;
}

/** `blkio.throttle.io_service_bytes_recursive`: `8:0 Read 4096` a line, and a total of all. */
export function blockBytesV1(text: string): BlockBytes {
  const sum = (word: string) =>
    text.split("\n").reduce((bytes, line) => {
      const [, operation, value] = line.split(" ");
      return operation === word ? bytes + Number(value) : bytes;
    }, 0);
  return { readBytes: sum("Read"), writeBytes: sum("Write") };
}

/** `io.stat`: `8:0 rbytes=4096 wbytes=0 rios=1 …` a line. */
export function blockBytesV2(text: string): BlockBytes {
  const sum = (key: string) =>
    [...text.matchAll(new RegExp(` ${key}=([0-9]+)`, "g"))].reduce((bytes, [, value]) => bytes + Number(value), 0);
  return { readBytes: sum("rbytes"), writeBytes: sum("wbytes") };
}
