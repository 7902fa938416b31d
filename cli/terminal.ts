/** The terminal that swarmctl runs on, for commands that somebody talks with. The one file here that launches something. */
/** What talking with a command takes. */
export interface Console {
  /** Resolves when there is room for more. */
  write(to: "out" | "err", bytes: Uint8Array): Promise<void>;
  /** The window, in characters; 0 = there is none. */
  size(): { readonly rows: number; readonly columns: number };
  /** Tells of each change of the size; the answer takes the listener away. */
  onResize(listener: () => void): () => void;
  /** Whether each key is handed over as it is typed, Ctrl-C too. Taken back at the process's end in any case. */
  setRaw(raw: boolean): void;
}

/** The real one. */
export function processConsole(): Console {
  const { stdin, stdout, stderr } = process;
  const restore = () => void stdin.setRawMode?.(false);
  return {
    async write(to, bytes) {
      const stream = to === "out" ? stdout : stderr;
      if (!stream.write(bytes)) await new Promise<void>((resolve) => stream.once("drain", () => resolve()));
    },
    size: () => ({ rows: stdout.rows ?? 0, columns: stdout.columns ?? 0 }),
    onResize(listener) {
      stdout.on("resize", listener);
      return () => void stdout.off("resize", listener);
    },
    setRaw(raw) {
      if (raw) process.once("exit", restore);
      else process.off("exit", restore);
      stdin.setRawMode?.(raw);
      if (raw) passOutputThrough();
    },
  };
}

/**
 * Node's raw mode leaves the output to be processed (libuv, UV_TTY_MODE_RAW): a line feed would move the cursor of a
 * program that draws to the left edge, too. Without stty(1) it stays so. What it changes goes with the raw mode.
 */
function passOutputThrough(): void {
  // Loaded here, for the sake of all the commands that need none.
  const { spawnSync } = process.getBuiltinModule("node:child_process");
  spawnSync("stty", ["-opost"], { stdio: ["inherit", "ignore", "ignore"] });
}
