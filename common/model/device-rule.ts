/** Rules of the device cgroup as Docker's users write them: `c 81:* rmw` (Documentation/admin-guide/cgroup-v1/devices.rst). */
import { bad, good, type Parsed } from "./parsed.ts";
import { quoted } from "./units.ts";

/** Device numbers have 12 and 20 bits (dev_t, makedev(3)). */
const MAJOR_MAX = 2 ** 12 - 1;
const MINOR_MAX = 2 ** 20 - 1;

/** One rule that allows. Structurally the OCI's. */
export interface DeviceRule {
  readonly allow: true;
  /** a = all devices, whatever their numbers. */
  readonly type: "a" | "c" | "b";
  /** Absent = any. */
  readonly major?: number;
  readonly minor?: number;
  /** Some of `rwm`: read, write, make nodes of. */
  readonly access: string;
}

/** Reads one rule. */
export function parseDeviceRule(text: string): Parsed<DeviceRule> {
  const match = /^([acb]) (\d{1,7}|\*):(\d{1,7}|\*) ([rwm]{1,3})$/.exec(text);
  const [, type, majorText, minorText, access = ""] = match ?? [];
  if (type !== "a" && type !== "c" && type !== "b") {
    return bad(`invalid device cgroup rule format: ${quoted(text)} ("c 81:* rmw")`);
  }
  const [major, minor] = [majorText, minorText].map((number) => (number === "*" ? undefined : Number(number)));
  if ((major ?? 0) > MAJOR_MAX || (minor ?? 0) > MINOR_MAX) {
    return bad(`${quoted(text)}: a device's numbers are at most ${MAJOR_MAX}:${MINOR_MAX}`);
  }
  const letters = [...new Set(access)].sort().join("");
  if (type === "a" && (major !== undefined || minor !== undefined || letters !== "mrw")) {
    return bad(`${quoted(text)}: the kernel takes "a" for all of all devices, whatever follows: write "a *:* rwm"`);
  }
  return good({
    allow: true,
    type,
    ...(major !== undefined && { major }),
    ...(minor !== undefined && { minor }),
    access: letters,
  });
}
