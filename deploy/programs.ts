/** The three programs that are built. */
export interface Program {
  readonly name: string;
  /** The source that starts it; its wrapper lies beside it. */
  readonly entry: string;
  /** Packages that its grpc-js asks for only with channelz or ORCA, which are not used. */
  readonly external: readonly string[];
}

export const PROGRAMS: readonly Program[] = [
  { name: "swarmctl", entry: "cli/main.ts", external: ["@grpc/proto-loader"] },
  { name: "swarm-agent", entry: "agent/main.ts", external: ["@grpc/proto-loader"] },
  { name: "swarm-manager", entry: "manager/main.ts", external: [] },
];
