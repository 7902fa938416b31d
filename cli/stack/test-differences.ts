/** Where `stack config` differs from docker's, on purpose: data for differential.test.ts. */
// biome-ignore-all lint/suspicious/noTemplateCurlyInString: they are the variables of stack files
import { CASES } from "./test-docker.ts";

/** Values of one case that differ. */
export interface Difference {
  readonly reason: string;
  /** Path, Docker's value, ours; undefined is a value that is not there. */
  readonly values: readonly (readonly [path: string, docker: unknown, here: unknown])[];
}

/** By the name of the case. */
export const DIFFERENCES: Readonly<Record<string, Difference>> = {
  extensions: {
    reason: "x- fields of networks and volumes are kept",
    values: [
      ["networks.n.x-net", undefined, 1],
      ["volumes.v.x-vol", undefined, true],
    ],
  },
  "host-ip": {
    reason: "the address is kept, not opened to all",
    values: [["services.a.ports.0.host_ip", undefined, "127.0.0.1"]],
  },
  "merge-faults": {
    reason: "false and empty override, a test is replaced, lists do not repeat, ports differ by protocol, x- is kept",
    values: [
      ["services.web.cap_add.1", "A", undefined],
      ["services.web.environment.A", "1", ""],
      ["services.web.healthcheck.test.1", "a", "b"],
      ["services.web.healthcheck.test.2", "CMD", undefined],
      ["services.web.healthcheck.test.3", "b", undefined],
      ["services.web.ports.0.target", 81, 80],
      ["services.web.ports.1.target", 53, 81],
      ["services.web.ports.1.published", 53, undefined],
      ["services.web.ports.1.protocol", "udp", "tcp"],
      ["services.web.ports.2", undefined, { mode: "ingress", target: 53, published: 53, protocol: "tcp" }],
      ["services.web.ports.3", undefined, { mode: "ingress", target: 53, published: 53, protocol: "udp" }],
      ["services.web.tty", true, undefined],
      ["x-b", undefined, 2],
    ],
  },
  "merge-logging": {
    reason: "options reach a driver that had none",
    values: [["services.c.logging.options", undefined, { a: "1" }]],
  },
  "merge-scalars": {
    reason: "false overrides",
    values: [["services.web.init", true, false]],
  },
  "merge-tags": {
    reason: "!reset and !override are obeyed",
    values: [
      ["services.web.command", ["null"], undefined],
      ["services.web.labels", { a: "b" }, undefined],
      ["services.web.ports.0.target", 80, 81],
      ["services.web.ports.0.published", 80, 81],
      ["services.web.ports.1", { mode: "ingress", target: 81, published: 81, protocol: "tcp" }, undefined],
    ],
  },
  "mount-extras": {
    reason: "options of mounts are kept, and honoured",
    values: [
      ["services.a.volumes.0.bind.create_host_path", undefined, true],
      ["services.a.volumes.1.tmpfs.mode", undefined, 511],
    ],
  },
  "name-only-secret": {
    reason: "a folder is not the file of a secret",
    values: [
      ["secrets.s.file", CASES.replace(/\/$/, ""), undefined],
      ["configs.c.file", CASES.replace(/\/$/, ""), undefined],
    ],
  },
  "nested-default": {
    reason: "defaults nest",
    values: [["services.a.hostname", "${TAG:-z}", "1.2"]],
  },
  "null-environment-env-file": {
    reason: "a name without value does not take a value away",
    values: [["services.a.environment.B", null, "two words"]],
  },
  "number-texts": {
    reason: "numbers and dates in texts stay as they are written",
    values: [
      ["services.web.environment.A", "1.5", "1.50"],
      ["services.web.environment.B", "1e+06", "1e6"],
      ["services.web.environment.C", "288", "0440"],
      ["services.web.environment.D", "16", "0x10"],
      ["services.web.environment.E", "2024-01-02 00:00:00 +0000 UTC", "2024-01-02"],
      ["services.web.environment.F", "1000", "1_000"],
      ["services.web.labels.v", "1.1", "1.10"],
    ],
  },
  "oom-score": {
    reason: "the field is kept",
    values: [["services.a.oom_score_adj", undefined, 500]],
  },
  "required-hyphen": {
    reason: "a hyphen in the message is part of it",
    values: [["services.a.hostname", "it-please", "1.2"]],
  },
  selinux: {
    reason: "the suffix is kept, and refused by a deploy",
    values: [
      ["services.a.volumes.0.bind", undefined, { selinux: "z" }],
      ["services.a.volumes.1.bind", undefined, { selinux: "Z" }],
    ],
  },
  "single-letter-volume": {
    reason: "there are no drives on Linux",
    values: [
      ["services.a.volumes.0.target", "v:/v", "/v"],
      ["services.a.volumes.0.source", undefined, "v"],
    ],
  },
  "swallowed-dash": {
    reason: "the text after a variable stays",
    values: [["services.a.hostname", "1.2", "1.2-web"]],
  },
  "ulimit-zero": {
    reason: "0 is a limit",
    values: [["services.a.ulimits.core", {}, 0]],
  },
  "yaml-scalars": {
    reason: "numbers in texts stay as they are written",
    values: [["services.web.environment.PLUS", "5", "+5"]],
  },
};
