import { SwarmError } from "./error.ts";
import type { Logger } from "./logger.ts";

/** Aborts at the process's first SIGTERM or SIGINT, and logs `message` then; a second one ends the process at once. */
export function stopSignal(logger: Logger, message: string): AbortSignal {
  const controller = new AbortController();
  for (const name of ["SIGTERM", "SIGINT"] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(1);
      logger.info({ signal: name }, message);
      controller.abort(new SwarmError("canceled", `stopped by ${name}`));
    });
  }
  return controller.signal;
}
