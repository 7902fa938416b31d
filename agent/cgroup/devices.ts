/**
 * The devices controller: which device nodes may be opened or made. v1 takes rules as text, v2 a BPF program; both are
 * made here from one table of rules, read the way the kernel's v1 controller reads them
 * (Documentation/admin-guide/cgroup-v1/devices.rst).
 */
import type { OciDeviceCgroup } from "../runtime/oci.ts";
import type { Knob } from "./knob.ts";

const character = (major: number, minor?: number): OciDeviceCgroup => ({
  allow: true,
  type: "c",
  major,
  ...(minor !== undefined && { minor }),
  access: "rwm",
});

/**
 * What a container may use: nothing but these. Docker's list, without the right to make any node (`c *:* m`) and
 * without /dev/net/tun, which its runtime adds behind the user's back.
 */
export const DEFAULT_DEVICE_RULES: readonly OciDeviceCgroup[] = [
  { allow: false, type: "a", access: "rwm" },
  character(1, 3), // null
  character(1, 5), // zero
  character(1, 7), // full
  character(1, 8), // random
  character(1, 9), // urandom
  character(5, 0), // tty
  character(5, 1), // console
  character(5, 2), // ptmx
  character(136), // pts/*
];

/** v1: one write per rule, in order. */
export function deviceKnobsV1(rules: readonly OciDeviceCgroup[]): readonly Knob[] {
  return rules.map((rule) => ({
    file: rule.allow ? "devices.allow" : "devices.deny",
    value: `${rule.type ?? "a"} ${number(rule.major)}:${number(rule.minor)} ${rule.access ?? "rwm"}`,
  }));
}

function number(value: number | undefined): string {
  return value === undefined || value < 0 ? "*" : String(value);
}

/** Access bits of struct bpf_cgroup_dev_ctx (include/uapi/linux/bpf.h). */
const ACCESS_BITS: Readonly<Record<string, number>> = { m: 1, r: 2, w: 4 };
export const ACCESS_ALL = 7;

/** Devices for which `access` is the opposite of the policy's default. */
export interface DeviceException {
  readonly type: "c" | "b";
  /** Undefined = any. */
  readonly major: number | undefined;
  readonly minor: number | undefined;
  /** Bits m = 1, r = 2, w = 4. */
  readonly access: number;
}

/** What a list of rules comes to. */
export interface DevicePolicy {
  readonly allowByDefault: boolean;
  readonly exceptions: readonly DeviceException[];
}

/**
 * Replays the rules: one for all devices sets the default and forgets the rest, one that differs from the default adds
 * an exception, one that agrees with it takes access away from the exception for the same devices.
 */
export function devicePolicy(rules: readonly OciDeviceCgroup[]): DevicePolicy {
  let allowByDefault = true;
  const exceptions = new Map<string, DeviceException>();
  for (const rule of rules) {
    if (rule.type === undefined || rule.type === "a") {
      allowByDefault = rule.allow;
      exceptions.clear();
      continue;
    }
    const [major, minor] = [rule.major, rule.minor].map((value) =>
      value === undefined || value < 0 ? undefined : value,
    );
    const key = `${rule.type} ${number(major)}:${number(minor)}`;
    const before = exceptions.get(key)?.access ?? 0;
    const bits = [...(rule.access ?? "rwm")].reduce((sum, letter) => sum | (ACCESS_BITS[letter] ?? 0), 0);
    const access = rule.allow === allowByDefault ? before & ~bits : before | bits;
    if (access === 0) exceptions.delete(key);
    else exceptions.set(key, { type: rule.type, major, minor, access });
  }
  return { allowByDefault, exceptions: [...exceptions.values()] };
}
