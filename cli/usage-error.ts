/** The command line itself is wrong: exit code 2, one line on stderr. What the cluster refuses is a SwarmError: exit code 1. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** Ends a command with exit code 1 after it has said on its own what went wrong. */
export class SilentFailure extends Error {
  override readonly name = "SilentFailure";
}
