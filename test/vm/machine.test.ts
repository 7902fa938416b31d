/**
 * Goal: the runtime does under cgroup v2, with every controller, what it does under v1; and what the host's kernel may lack
 * (NFS, WireGuard, SCTP) is shown in one that has it. Method: the runtime's test files, and those of `guest`, run in a virtual machine with
 * Debian's kernel, where v2 is all there is.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { rootTest } from "../privileges.ts";
import { runInMachine } from "./machine.ts";

const FILES = [
  "agent/cgroup/manager.test.ts",
  "agent/cgroup/controllers.test.ts",
  "agent/container-encryption.test.ts",
  "agent/copy/copy.test.ts",
  "agent/runtime/container.test.ts",
  "agent/runtime/default-container.test.ts",
  "agent/runtime/hardening.test.ts",
  "agent/runtime/hostile-root.test.ts",
  "agent/runtime/limits.test.ts",
  "agent/runtime/terminal.test.ts",
  "test/vm/guest",
].join(" ");

const LONG = process.env.SWARM_TEST_LONG !== undefined;
const TIMEOUT_MS = LONG ? 2_700_000 : 900_000;

/** Vitest's JSON report, as far as it is read here. */
interface Report {
  readonly numPassedTests: number;
  readonly testResults: readonly {
    readonly name: string;
    readonly message: string;
    readonly assertionResults: readonly {
      readonly fullName: string;
      readonly status: string;
      readonly failureMessages: readonly string[];
    }[];
  }[];
}

rootTest(
  "the runtime's tests, and the guest's, pass in a kernel with cgroup v2, NFS, WireGuard and SCTP",
  { timeout: TIMEOUT_MS },
  async () => {
    const directory = mkdtempSync(join(tmpdir(), "swarm-vm-"));
    try {
      const options =
        "run --config test/vitest.config.ts --project unit --project guest --reporter=json --outputFile=/tmp/report.json";
      const environment = LONG ? "TEST_PATIENCE=5 SWARM_TEST_LONG=1" : "TEST_PATIENCE=5";
      const command = `${environment} node node_modules/vitest/vitest.mjs ${options} ${FILES} > /tmp/log 2>&1; cat /tmp/report.json || cat /tmp/log`;
      const { output } = await runInMachine(directory, command, TIMEOUT_MS - 40_000);
      expect(output, "the machine reports").toMatch(/^\{/);
      const report: Report = JSON.parse(output.slice(0, output.lastIndexOf("}") + 1));
      const failures = report.testResults.flatMap((file) => [
        ...(file.message === "" ? [] : [`${file.name}: ${file.message}`]),
        ...file.assertionResults
          .filter(({ status }) => status === "failed")
          .map(({ fullName, failureMessages }) => `${fullName}: ${failureMessages.join("\n")}`),
      ]);
      expect(failures).toEqual([]);
      expect(report.numPassedTests).toBeGreaterThan(20);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  },
);
