// Goal: Docker's capability words mean here what they mean there, and no unknown name passes. Method: tables.
import { describe, expect, test } from "vitest";
import { isCapability } from "../../common/model/capability-names.ts";
import {
  CAPABILITY_NAMES,
  type CapabilityChanges,
  capabilityMask,
  DEFAULT_CAPABILITIES,
  resolveCapabilities,
} from "./capabilities.ts";

function resolve(changes: CapabilityChanges): string {
  const resolved = resolveCapabilities(changes);
  return resolved.kind === "capabilities"
    ? resolved.capabilities.map((name) => name.slice(4)).join(" ")
    : resolved.problems.map(({ field, problem }) => `${field}: ${problem}`).join("; ");
}

const DEFAULT = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT SETFCAP";

describe("capabilities", () => {
  test("numbers are the kernel's", () => {
    expect(CAPABILITY_NAMES.length).toBe(41);
    expect(CAPABILITY_NAMES.indexOf("CAP_SYS_ADMIN")).toBe(21);
    expect(CAPABILITY_NAMES.indexOf("CAP_CHECKPOINT_RESTORE")).toBe(40);
    expect(capabilityMask(DEFAULT_CAPABILITIES).toString(16)).toBe("800405fb");
    expect(capabilityMask(CAPABILITY_NAMES).toString(16)).toBe("1ffffffffff");
    expect(capabilityMask([])).toBe(0n);
    expect(CAPABILITY_NAMES.filter((name) => !isCapability(name))).toEqual([]);
  });

  test.each<[CapabilityChanges, string]>([
    [{}, DEFAULT],
    [{ add: ["net_raw"] }, DEFAULT.replace("SYS_CHROOT", "NET_RAW SYS_CHROOT")],
    [{ add: ["CAP_NET_RAW", "NET_RAW", "cap_net_raw"] }, DEFAULT.replace("SYS_CHROOT", "NET_RAW SYS_CHROOT")],
    [{ drop: ["CHOWN", "Cap_Kill"] }, DEFAULT.replace("CHOWN ", "").replace("KILL ", "")],
    [{ drop: ["ALL"] }, ""],
    [{ drop: ["all"], add: ["NET_ADMIN"] }, "NET_ADMIN"],
    [{ add: ["ALL"] }, CAPABILITY_NAMES.map((name) => name.slice(4)).join(" ")],
    [
      { add: ["ALL"], drop: ["SYS_ADMIN"] },
      CAPABILITY_NAMES.map((name) => name.slice(4))
        .filter((name) => name !== "SYS_ADMIN")
        .join(" "),
    ],
    [{ add: ["CHOWN"], drop: ["CHOWN"] }, DEFAULT],
    [
      { add: ["NOPE"], drop: ["", "CAP_"] },
      'cap-add: unknown capability "NOPE"; cap-drop: unknown capability ""; cap-drop: unknown capability "CAP_"',
    ],
  ])("%j", (changes, expected) => {
    expect(resolve(changes)).toBe(expected);
  });
});
