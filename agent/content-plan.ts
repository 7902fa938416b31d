/**
 * Where a task's secrets and configs appear. Pure.
 *
 *   on the host (tmpfs, 0700)             in the container (read-only)
 *   <contents>/<task>/secrets/NAME        /run/secrets/NAME
 *   <contents>/<task>/secrets/.target/N   ── TARGET is a link to /run/secrets/.target/N
 *   <contents>/<task>/configs/N           ── TARGET is a link to /run/swarm/configs/N
 *
 * Directories are mounted, not files: a file that is replaced by a rename is seen at once and whole by the container,
 * which a mounted file never is. Docker mounts each file; what a program reads is the same.
 */
import type { ContainerSpec, ContentPin, FileTarget } from "../proto/gen/swarm/v1/types_pb.js";

/** Docker's folder of secrets (moby daemon/container_operations_unix.go). */
const SECRETS_FOLDER = "/run/secrets";
const CONFIGS_FOLDER = "/run/swarm/configs";
/** Readable by all of the container's users, as Docker's default. */
const MODE_DEFAULT = 0o444;

/** One secret or config as a file. */
export interface ContentFile {
  readonly kind: "secret" | "config";
  /** The object's name, and the name of its target as it was written: what templates call it by. */
  readonly name: string;
  readonly target: string;
  readonly pin: ContentPin;
  /** Below the task's folder. */
  readonly path: string;
  readonly uid: number;
  readonly gid: number;
  readonly mode: number;
}

export interface ContentPlan {
  readonly files: readonly ContentFile[];
  /** Folders of the task that are mounted, read-only. */
  readonly mounts: readonly { readonly folder: string; readonly target: string }[];
  /** Links that are made in the container's root, in place of what the image has there. */
  readonly links: readonly { readonly path: string; readonly target: string }[];
}

/** Plans the files of a container's secrets and configs. A reference without a pin is not there: it is left out. */
export function planContents(
  spec: Pick<ContainerSpec, "secrets" | "configs">,
  pins: readonly ContentPin[],
): ContentPlan {
  const files: ContentFile[] = [];
  const links: { path: string; target: string }[] = [];
  const pinOf = (id: string) => pins.find(({ objectId }) => objectId === id);
  spec.secrets.forEach(({ secretId, secretName, file }, index) => {
    const pin = pinOf(secretId);
    if (pin === undefined) return;
    const target = absolute(file?.name || secretName, SECRETS_FOLDER);
    const inside = target.startsWith(`${SECRETS_FOLDER}/`) ? target.slice(SECRETS_FOLDER.length + 1) : undefined;
    const path = inside ?? `.target/${index}`;
    files.push({ kind: "secret", name: secretName, target, pin, path: `secrets/${path}`, ...owner(file) });
    if (inside === undefined) links.push({ path: target, target: `${SECRETS_FOLDER}/${path}` });
  });
  spec.configs.forEach(({ configId, configName, file }, index) => {
    const pin = pinOf(configId);
    if (pin === undefined) return;
    const target = absolute(file?.name || configName, "");
    files.push({ kind: "config", name: configName, target, pin, path: `configs/${index}`, ...owner(file) });
    links.push({ path: target, target: `${CONFIGS_FOLDER}/${index}` });
  });
  const has = (kind: ContentFile["kind"]) => files.some((file) => file.kind === kind);
  const mounts = [
    ...(has("secret") ? [{ folder: "secrets", target: SECRETS_FOLDER }] : []),
    ...(has("config") ? [{ folder: "configs", target: CONFIGS_FOLDER }] : []),
  ];
  return { files, mounts, links };
}

function absolute(name: string, folder: string): string {
  return (name.startsWith("/") ? name : `${folder}/${name}`).replaceAll(/\/+/g, "/");
}

function owner(file: FileTarget | undefined): { readonly uid: number; readonly gid: number; readonly mode: number } {
  return { uid: Number(file?.uid || 0), gid: Number(file?.gid || 0), mode: (file?.mode ?? MODE_DEFAULT) & 0o7777 };
}
