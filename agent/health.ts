/**
 * Health checks with Docker's meaning (docs.docker.com, Dockerfile reference, HEALTHCHECK): a command inside the container
 * that says 0 or not. Failures within the start period do not count until one check has passed; then, or after it,
 * `retries` failures in a row make the container unhealthy. What is healthy is decided purely; only `monitorHealth` waits.
 */
import { durationMs } from "@bufbuild/protobuf/wkt";
import type { Clock } from "../common/base/clock.ts";
import { AssertionFailure, SwarmError } from "../common/base/error.ts";
import type { ImageHealthcheck } from "../common/model/oci-image.ts";
import type { HealthConfig } from "../proto/gen/swarm/v1/types_pb.js";

/** How a container is checked, with all defaults filled in. */
export interface HealthPolicy {
  /** The command and its arguments. */
  readonly command: readonly string[];
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly retries: number;
  readonly startPeriodMs: number;
  readonly startIntervalMs: number;
}

/** Docker's defaults. */
const DEFAULTS = { intervalMs: 30_000, timeoutMs: 30_000, retries: 3, startPeriodMs: 0, startIntervalMs: 5_000 };

/** What the checks so far amount to. */
export interface HealthState {
  readonly status: "starting" | "healthy" | "unhealthy";
  readonly failingStreak: number;
}

export const HEALTH_BEGIN: HealthState = { status: "starting", failingStreak: 0 };

/**
 * The policy of a task: the service's, where it says nothing the image's, else defaults. Undefined without a check
 * (`["NONE"]`, or no test anywhere). Throws `invalid_argument` for a test that is neither CMD, CMD-SHELL nor NONE.
 */
export function healthPolicy(
  spec: HealthConfig | undefined,
  image: ImageHealthcheck | undefined,
): HealthPolicy | undefined {
  const test = spec && spec.test.length > 0 ? spec.test : (image?.test ?? []);
  const command = commandOf(test);
  if (!command) return undefined;
  return {
    command,
    intervalMs: positive(spec?.interval && durationMs(spec.interval), image?.intervalMs, DEFAULTS.intervalMs),
    timeoutMs: positive(spec?.timeout && durationMs(spec.timeout), image?.timeoutMs, DEFAULTS.timeoutMs),
    retries: positive(spec?.retries, image?.retries, DEFAULTS.retries),
    startPeriodMs: positive(
      spec?.startPeriod && durationMs(spec.startPeriod),
      image?.startPeriodMs,
      DEFAULTS.startPeriodMs,
    ),
    startIntervalMs: positive(
      spec?.startInterval && durationMs(spec.startInterval),
      image?.startIntervalMs,
      DEFAULTS.startIntervalMs,
    ),
  };
}

function commandOf(test: readonly string[]): readonly string[] | undefined {
  const [kind, ...rest] = test;
  switch (kind) {
    case undefined:
    case "":
    case "NONE":
      return undefined;
    case "CMD":
      return rest.length > 0 ? rest : undefined;
    case "CMD-SHELL":
      return ["/bin/sh", "-c", rest.join(" ")];
    default:
      throw new SwarmError(
        "invalid_argument",
        `healthcheck test: ${JSON.stringify(kind)} is not CMD, CMD-SHELL or NONE`,
      );
  }
}

/** The first that is given and not 0; Docker takes 0 as "inherit". */
function positive(spec: number | undefined, image: number | undefined, otherwise: number): number {
  return spec || image || otherwise;
}

/** The state after one more check. `sinceStartMs` is the container's age when the check began. */
export function afterCheck(
  policy: HealthPolicy,
  state: HealthState,
  check: { readonly passed: boolean; readonly sinceStartMs: number },
): HealthState {
  if (check.passed) return { status: "healthy", failingStreak: 0 };
  if (state.status === "starting" && check.sinceStartMs < policy.startPeriodMs) return state;
  const failingStreak = state.failingStreak + 1;
  return { status: failingStreak >= policy.retries ? "unhealthy" : state.status, failingStreak };
}

/** How long to wait before the next check: the start interval until the start period is over or a check has passed. */
export function nextCheckDelayMs(policy: HealthPolicy, state: HealthState, sinceStartMs: number): number {
  const starting = state.status === "starting" && sinceStartMs < policy.startPeriodMs;
  return starting ? policy.startIntervalMs : policy.intervalMs;
}

/** What one run of the check said. */
export interface CheckResult {
  readonly exitCode: number;
  readonly timedOut: boolean;
  /** Its first 4 KiB, both streams together. */
  readonly output: string;
}

/** What monitoring needs. `check` runs the policy's command inside the container. */
export interface HealthMonitorOptions {
  readonly clock: Clock;
  readonly policy: HealthPolicy;
  /** Monotonic time at which the container started. */
  readonly startedMs: number;
  readonly initial: HealthState;
  readonly check: (policy: HealthPolicy, signal: AbortSignal) => Promise<CheckResult>;
  readonly onHealthy: () => void;
}

/** Checks again and again; resolves with the reason once the container is unhealthy: "unhealthy: <last output>". */
export async function monitorHealth(options: HealthMonitorOptions, signal: AbortSignal): Promise<string> {
  const { clock, policy, startedMs } = options;
  let state = options.initial;
  while (true) {
    await clock.sleep(nextCheckDelayMs(policy, state, clock.monotonicMs() - startedMs), signal);
    const sinceStartMs = clock.monotonicMs() - startedMs;
    const result = await runCheck(options, signal);
    const before = state.status;
    state = afterCheck(policy, state, { passed: result.exitCode === 0 && !result.timedOut, sinceStartMs });
    if (state.status === "unhealthy") return `unhealthy: ${explain(policy, result)}`;
    if (state.status === "healthy" && before !== "healthy") options.onHealthy();
  }
}

/** A check that cannot be run has failed, as in Docker. */
async function runCheck({ policy, check }: HealthMonitorOptions, signal: AbortSignal): Promise<CheckResult> {
  try {
    return await check(policy, signal);
  } catch (reason) {
    if (signal.aborted || reason instanceof AssertionFailure) throw reason;
    return { exitCode: -1, timedOut: false, output: SwarmError.from(reason).message };
  }
}

function explain(policy: HealthPolicy, result: CheckResult): string {
  if (result.timedOut) return `health check exceeded timeout (${policy.timeoutMs} ms)`;
  const output = result.output.trim().slice(0, 256);
  return output === "" ? `health check exited with ${result.exitCode}` : output;
}
