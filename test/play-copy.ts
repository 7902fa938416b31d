/** Plays a task whose files are a folder of this machine: looks with Node, packs and unpacks with GNU tar. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { lstatSync, readlinkSync, type Stats, statSync } from "node:fs";
import { basename, dirname, join, posix } from "node:path";
import { create } from "@bufbuild/protobuf";
import { SwarmError } from "../common/base/error.ts";
import {
  type CopyRequest,
  type CopyResponse,
  CopyResponseSchema,
  PathState_Kind,
  PathStateSchema,
} from "../proto/gen/swarm/v1/control_pb.js";
import { type AgentFrame, AgentFrameSchema, type ManagerFrame } from "../proto/gen/swarm/v1/dispatcher_pb.js";

const CHUNK_BYTES = 64 * 1024;

/** A path `/broken` breaks the stream in the middle; `/odd` is copied with a warning. */
export async function* playCopy(
  folder: string,
  first: CopyRequest,
  outgoing: AsyncIterator<ManagerFrame>,
): AsyncGenerator<AgentFrame, void, undefined> {
  const { content } = first;
  if (content.case === "from") yield* playFrom(folder, content.value);
  if (content.case === "to") yield* playTo(folder, content.value.path, outgoing);
}

async function* playFrom(
  folder: string,
  { path, followLink }: { readonly path: string; readonly followLink: boolean },
) {
  const inside = posix.normalize(`/${path}`);
  const follow = followLink || /\/\.?$/.test(`/${path}`);
  const state = look(folder, inside, follow);
  if (!state) throw new SwarmError("not_found", `could not find the file ${path} in the task`);
  yield place(inside, state);
  const name = path.endsWith("/.") || inside === "/" ? "." : basename(inside);
  const at = join(folder, inside);
  const args = name === "." ? ["-C", at, "."] : [...(follow ? ["-h"] : []), "-C", dirname(at), name];
  const tar = spawn("tar", ["--format=pax", "-cf", "-", ...args], { stdio: ["ignore", "pipe", "inherit"] });
  let sent = 0;
  for await (const chunk of tar.stdout) {
    for (let start = 0; start < chunk.length; start += CHUNK_BYTES) {
      yield say({ case: "data", value: chunk.subarray(start, start + CHUNK_BYTES) });
    }
    sent += chunk.length;
    if (path === "/broken" && sent > 100_000) throw new SwarmError("unavailable", "lost node node-1: it broke");
  }
  if (path === "/odd") yield say({ case: "warning", value: "/odd/\u001b[2Jsock: a socket, left out" });
  yield say({ case: "done", value: true });
}

async function* playTo(folder: string, path: string, outgoing: AsyncIterator<ManagerFrame>) {
  let [found, state] = [`/${path.replace(/^\/+/, "")}`, look(folder, path, false)];
  for (; state?.isSymbolicLink(); state = look(folder, found, false)) {
    const target = readlinkSync(join(folder, found));
    found = target.startsWith("/") ? target : `${found.slice(0, found.lastIndexOf("/") + 1)}${target}`;
  }
  yield place(found, state);
  const second = await next(outgoing);
  if (second?.case !== "target") throw new SwarmError("invalid_argument", "target: must follow");
  const { directory, keepOwners } = second.value;
  if (directory === "/readonly")
    throw new SwarmError("failed_precondition", "/readonly: container rootfs is marked read-only");
  if (!look(folder, directory, true)?.isDirectory()) {
    throw new SwarmError("not_found", `could not find the directory ${directory} in the task`);
  }
  const args = [keepOwners ? "--same-owner" : "--no-same-owner", "-C", join(folder, directory), "-xpf", "-"];
  const tar = spawn("tar", args, { stdio: ["pipe", "ignore", "inherit"] });
  const ended = once(tar, "close");
  for (let part = await next(outgoing); part?.case === "data"; part = await next(outgoing)) {
    if (!tar.stdin.write(part.value)) await once(tar.stdin, "drain");
  }
  tar.stdin.end();
  const [code] = await ended;
  if (code !== 0) throw new SwarmError("failed_precondition", `tar ended with ${code}`);
  yield say({ case: "done", value: true });
}

async function next(outgoing: AsyncIterator<ManagerFrame>): Promise<CopyRequest["content"] | undefined> {
  const { value } = await outgoing.next();
  return value?.content.case === "copy" ? value.content.value.content : undefined;
}

function look(folder: string, path: string, follow: boolean): Stats | undefined {
  try {
    return (follow ? statSync : lstatSync)(join(folder, path));
  } catch {
    return undefined;
  }
}

function place(path: string, state: Stats | undefined): AgentFrame {
  const kind = state?.isDirectory()
    ? PathState_Kind.DIRECTORY
    : state?.isFile()
      ? PathState_Kind.FILE
      : state?.isSymbolicLink()
        ? PathState_Kind.SYMLINK
        : state
          ? PathState_Kind.OTHER
          : PathState_Kind.MISSING;
  return say({ case: "place", value: create(PathStateSchema, { kind, path, sizeBytes: BigInt(state?.size ?? 0) }) });
}

function say(content: CopyResponse["content"]): AgentFrame {
  return create(AgentFrameSchema, { content: { case: "copy", value: create(CopyResponseSchema, { content }) } });
}
