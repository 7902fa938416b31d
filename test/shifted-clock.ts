/** Programs on hosts whose clocks are wrong. */

const LIBRARIES = { x64: "x86_64-linux-gnu", arm64: "aarch64-linux-gnu" };

/**
 * What to put before a command so that its clock differs from the machine's by `offset`: "+1h", "-91d" (faketime(1)); nothing for
 * none. Only the time of day differs: the monotonic clock is nobody's to set. Containers and etcd keep the machine's.
 */
export function shiftedClock(offset: string | undefined): readonly string[] {
  if (offset === undefined) return [];
  const folder = LIBRARIES[process.arch as keyof typeof LIBRARIES];
  const library = `/usr/lib/${folder}/faketime/libfaketime.so.1`;
  return ["env", `LD_PRELOAD=${library}`, `FAKETIME=${offset}`, "FAKETIME_DONT_FAKE_MONOTONIC=1"];
}
