import { SwarmError } from "../common/base/error.ts";

/** As a dispatcher's `sessionSignal`, where every node has the session `id`, which never ends. */
export function oneSession(id: string): (nodeId: string, sessionId: string) => AbortSignal {
  const { signal } = new AbortController();
  return (_, sessionId) => {
    if (sessionId !== id) throw new SwarmError("failed_precondition", "session invalid");
    return signal;
  };
}
