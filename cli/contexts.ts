/**
 * Contexts: managers by name, with the certificates to reach them, in files of this user only.
 *
 *     $SWARM_CONFIG (~/.swarm)
 *       config.json                   {"currentContext": "prod"}
 *       contexts/NAME/meta.json       0600 in 0700, as are ca.pem, cert.pem, key.pem beside it
 */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { errnoOf, SwarmError, systemMessage } from "../common/base/error.ts";
import type { Io } from "./io.ts";

/** The name of what holds without any context: `--host`, $SWARM_HOST, this machine's socket. */
export const DEFAULT_CONTEXT = "default";

/** Docker's rule (docker/cli cli/context/store). */
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$/;

/** What is kept of a context besides its files. */
export interface ContextMeta {
  readonly description: string;
  /** Addresses, several with commas between them. */
  readonly host: string;
  readonly skipTlsVerify: boolean;
  /** The name that managers' certificates have, whatever their addresses. Absent: that of their address. */
  readonly serverName?: string;
}

/** PEM texts of a context. */
export interface ContextPem {
  readonly ca?: string | undefined;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
}

/** One that is stored. */
export interface StoredContext extends ContextMeta {
  readonly name: string;
  /** Paths of the files that it has. */
  readonly files: {
    readonly ca?: string | undefined;
    readonly cert?: string | undefined;
    readonly key?: string | undefined;
  };
}

const PARTS = ["ca", "cert", "key"] as const;

/** Where swarmctl keeps what it is told to remember. */
export function configFolder({ environment }: Pick<Io, "environment">): string {
  return environment.SWARM_CONFIG || `${environment.HOME ?? ""}/.swarm`;
}

/** Throws `invalid_argument` for what cannot be a context's name. */
export function checkContextName(name: string): void {
  if (NAME.test(name) && name !== DEFAULT_CONTEXT) return;
  const why = name === DEFAULT_CONTEXT ? "is what holds without a context" : `must match ${NAME.source}`;
  throw new SwarmError("invalid_argument", `context name ${JSON.stringify(name.slice(0, 128))} ${why}`);
}

export class ContextStore {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** All, by name. */
  list(): readonly StoredContext[] {
    const names = existsSync(join(this.#folder, "contexts")) ? readdirSync(join(this.#folder, "contexts")) : [];
    return names
      .filter((name) => existsSync(this.#path(name, "meta.json")))
      .sort()
      .map((name) => this.get(name));
  }

  has(name: string): boolean {
    return NAME.test(name) && existsSync(this.#path(name, "meta.json"));
  }

  /** Throws `not_found`, or `data_loss` when its file cannot be understood. */
  get(name: string): StoredContext {
    if (!this.has(name)) throw new SwarmError("not_found", `context ${JSON.stringify(name.slice(0, 128))} not found`);
    const path = this.#path(name, "meta.json");
    const meta = readJson(path);
    const files = PARTS.flatMap((part) => {
      const file = this.#path(name, `${part}.pem`);
      return existsSync(file) ? [[part, file] as const] : [];
    });
    if (typeof meta.host !== "string") throw new SwarmError("data_loss", `${path}: names no host`);
    return {
      name,
      description: typeof meta.description === "string" ? meta.description : "",
      host: meta.host,
      skipTlsVerify: meta.skipTlsVerify === true,
      ...(typeof meta.serverName === "string" && { serverName: meta.serverName }),
      files: Object.fromEntries(files),
    };
  }

  /** The texts of a context's files. */
  pem(name: string): ContextPem {
    const { files } = this.get(name);
    const texts = PARTS.flatMap((part) => {
      const path = files[part];
      return path === undefined ? [] : [[part, readFileSync(path, "utf8")] as const];
    });
    return Object.fromEntries(texts);
  }

  /** Writes a context whole. */
  write(name: string, meta: ContextMeta, pem: ContextPem): void {
    checkContextName(name);
    const folder = join(this.#folder, "contexts", name);
    makeFolder(folder);
    for (const part of PARTS) {
      const text = pem[part];
      if (text === undefined) rmSync(join(folder, `${part}.pem`), { force: true });
      else writeOwn(join(folder, `${part}.pem`), text);
    }
    writeOwn(join(folder, "meta.json"), `${JSON.stringify(meta, undefined, 2)}\n`);
  }

  remove(name: string): void {
    this.get(name);
    const folder = join(this.#folder, "contexts", name);
    onDisk(folder, () => rmSync(folder, { recursive: true }));
  }

  /** The name that `context use` chose last. */
  current(): string | undefined {
    const path = join(this.#folder, "config.json");
    if (!existsSync(path)) return undefined;
    const { currentContext } = readJson(path);
    return typeof currentContext === "string" && currentContext !== "" ? currentContext : undefined;
  }

  use(name: string): void {
    if (name !== DEFAULT_CONTEXT) this.get(name);
    makeFolder(this.#folder);
    const path = join(this.#folder, "config.json");
    const { currentContext: _, ...rest } = existsSync(path) ? readJson(path) : {};
    const config = name === DEFAULT_CONTEXT ? rest : { ...rest, currentContext: name };
    writeOwn(path, `${JSON.stringify(config, undefined, 2)}\n`);
  }

  #path(name: string, file: string): string {
    return join(this.#folder, "contexts", name, file);
  }
}

function makeFolder(folder: string): void {
  onDisk(folder, () => {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    chmodSync(folder, 0o700);
  });
}

/** Does something to `path`; what the system refuses is told with the path. */
function onDisk(path: string, work: () => void): void {
  try {
    work();
  } catch (reason) {
    throw new SwarmError("failed_precondition", `${path}: ${systemMessage(reason)}`, { cause: reason });
  }
}

/** Whole or not at all, and its owner's only. */
function writeOwn(path: string, text: string): void {
  onDisk(path, () => {
    writeFileSync(`${path}.new`, text, { mode: 0o600, encoding: "utf8" });
    renameSync(`${path}.new`, path);
  });
}

function readJson(path: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(readFileSync(path, "utf8"));
    if (typeof value === "object" && value !== null) return { ...value };
  } catch (reason) {
    if (errnoOf(reason) !== undefined) throw SwarmError.wrap(path, reason);
  }
  throw new SwarmError("data_loss", `${path}: is no JSON object; remove it to start anew`);
}
