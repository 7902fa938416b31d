/** One value for one file of a cgroup; what every controller turns resources into. */
export interface Knob {
  /** The file's name inside the cgroup directory: `memory.max`. */
  readonly file: string;
  readonly value: string;
  /** Whether a kernel that lacks the file is fine. Default false: a limit that cannot be set fails the container. */
  readonly optional?: boolean;
}

/** A knob for a number in which OCI's negative value means "no limit", said with the controller's own word for it. */
export function limitKnob(file: string, value: number, unlimited: string, options?: { optional: boolean }): Knob {
  return { file, value: value < 0 ? unlimited : String(value), ...options };
}
