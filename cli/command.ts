/** What a command is: data for the help and the flag reader, and one function. */
import type { Clock } from "../common/base/clock.ts";
import type { Client } from "../common/rpc/service.ts";
import type { Control } from "../proto/gen/swarm/v1/control_pb.js";
import type { Flags, FlagTable } from "./flags/parse.ts";
import type { Io } from "./io.ts";

export type ControlClient = Client<typeof Control>;

/** One run of a command. */
export interface Invocation {
  readonly flags: Flags;
  /** The global ones, wherever they stood. */
  readonly globals: Flags;
  readonly words: readonly string[];
  readonly io: Io;
  readonly clock: Clock;
  /** Aborts on SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
  /** Opens the connection when it is first needed: the libraries cost more than the work. */
  connect(): Promise<ControlClient>;
  /** Opens it anew, to whichever manager answers now: for streams that outlive a manager. */
  reconnect(): Promise<ControlClient>;
}

/** A command as it is written. */
export interface Command {
  /** After "swarmctl": `service scale [OPTIONS] SERVICE=REPLICAS [SERVICE=REPLICAS...]`. */
  readonly usage: string;
  readonly summary: string;
  readonly flags: FlagTable;
  /** How many words it takes. */
  readonly words: { readonly min: number; readonly max: number };
  /** Whether flags may follow words. Default true; not where the words are a command line for a container. */
  readonly interspersed?: boolean;
  /** Resolves to the exit code: 0 done, 1 refused or failed. */
  run(invocation: Invocation): Promise<number>;
}
