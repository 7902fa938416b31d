/**
 * The agent's durable memory of its tasks: one small file per task, replaced whole. There is no fsync: a file that was
 * renamed survives the death of the agent, and a reboot makes the records dead anyway (their `boot_id` says so).
 */
import { renameSync, rmSync, writeFileSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm } from "node:fs/promises";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { errnoOf, SwarmError } from "../common/base/error.ts";
import { isId, type TaskId } from "../common/base/id.ts";
import type { Logger } from "../common/base/logger.ts";
import {
  type EndpointsRecord,
  EndpointsRecordSchema,
  type TaskRecord,
  TaskRecordSchema,
} from "../proto/gen/swarm/v1/agent_pb.js";
import type { AgentDirectories } from "./node-runtime.ts";

/** Where task records, and the endpoints of their services, are kept. Every method throws a SwarmError that names the file. */
export interface TaskDatabase {
  /** All records that can be read; what cannot is set aside. */
  load(): Promise<readonly TaskRecord[]>;
  /** Replaces the record of `record.task.id`; once resolved, a killed agent finds it again. */
  put(record: TaskRecord): Promise<void>;
  /** Forgets a task; one that is not there is fine. */
  delete(taskId: TaskId): Promise<void>;
  /** The endpoints as they were last put; undefined when there are none yet or they are damaged. */
  loadEndpoints(): Promise<EndpointsRecord | undefined>;
  putEndpoints(record: EndpointsRecord): Promise<void>;
}

/** Records as files `<tasks>/<task id>.pb`. */
export class FileTaskDatabase implements TaskDatabase {
  readonly #directory: string;
  readonly #endpointsPath: string;
  /** The records that were written or read: a new one has none to take away. */
  readonly #written = new Set<string>();
  readonly #logger: Logger;

  constructor({ tasks, endpoints }: Pick<AgentDirectories, "tasks" | "endpoints">, logger: Logger) {
    this.#directory = tasks;
    this.#endpointsPath = endpoints;
    this.#logger = logger;
  }

  /** A truncated or garbled file is renamed to `<name>.bad` with a line in the log: the agent starts without it. */
  async load(): Promise<readonly TaskRecord[]> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const records: TaskRecord[] = [];
    const names = new Set(await readdir(this.#directory));
    for (const name of [...names].sort()) {
      if (name.endsWith(".bad")) continue;
      const path = `${this.#directory}/${name}`;
      const isNew = name.endsWith(".new");
      const finalName = isNew ? name.slice(0, -".new".length) : name;
      const record = isNew && names.has(finalName) ? undefined : decode(await readFile(path), finalName);
      if (record) {
        if (isNew) await rename(path, `${this.#directory}/${finalName}`);
        this.#written.add(`${this.#directory}/${finalName}`);
        records.push(record);
      } else if (isNew) {
        await rm(path);
      } else {
        await rename(path, `${path}.bad`);
        this.#logger.warn({ path: `${path}.bad` }, "task record is damaged, set it aside");
      }
    }
    return records;
  }

  async put(record: TaskRecord): Promise<void> {
    const path = this.#pathOf(record.task?.id ?? "");
    try {
      // Without the thread pool, whose queue is long when many tasks start. The old file goes first, since ext4 flushes
      // a file that replaces another one (1 ms); a crash in between leaves the new one, whole, to `load`.
      writeFileSync(`${path}.new`, toBinary(TaskRecordSchema, record), { mode: 0o600 });
      if (this.#written.has(path)) rmSync(path, { force: true });
      renameSync(`${path}.new`, path);
      this.#written.add(path);
    } catch (reason) {
      throw notWritten(path, reason);
    }
  }

  async loadEndpoints(): Promise<EndpointsRecord | undefined> {
    const path = this.#endpointsPath;
    try {
      return fromBinary(EndpointsRecordSchema, await readFile(path));
    } catch (reason) {
      if (errnoOf(reason) !== "ENOENT") this.#logger.warn({ path, err: reason }, "endpoints not read");
      return undefined;
    }
  }

  async putEndpoints(record: EndpointsRecord): Promise<void> {
    const path = this.#endpointsPath;
    try {
      writeFileSync(`${path}.new`, toBinary(EndpointsRecordSchema, record), { mode: 0o600 });
      renameSync(`${path}.new`, path);
    } catch (reason) {
      throw notWritten(path, reason);
    }
  }

  async delete(taskId: TaskId): Promise<void> {
    const path = this.#pathOf(taskId);
    await rm(path, { force: true });
    this.#written.delete(path);
  }

  #pathOf(taskId: string): string {
    if (!isId(taskId)) throw new SwarmError("invalid_argument", `not a task id: ${JSON.stringify(taskId)}`);
    return `${this.#directory}/${taskId}.pb`;
  }
}

function notWritten(path: string, reason: unknown): SwarmError {
  return new SwarmError("resource_exhausted", `write ${path}: ${errnoOf(reason) ?? String(reason)}`, { cause: reason });
}

/** Undefined for anything but a whole record whose id is the file's name. */
function decode(bytes: Uint8Array, name: string): TaskRecord | undefined {
  try {
    const record = fromBinary(TaskRecordSchema, bytes);
    // A file cut at a field's end still parses: the boot id is written last, so its absence shows the cut.
    const whole = record.task && record.template?.spec && record.status && record.bootId !== "";
    return whole && `${record.task?.id}.pb` === name && isId(record.task?.id ?? "") ? record : undefined;
  } catch {
    return undefined;
  }
}

/** Records in memory, as bytes so that nobody shares them: for simulations. It survives a simulated crash of its agent. */
export class MemoryTaskDatabase implements TaskDatabase {
  readonly #records = new Map<string, Uint8Array>();
  #endpoints: Uint8Array | undefined;

  async load(): Promise<readonly TaskRecord[]> {
    return [...this.#records.values()].map((bytes) => fromBinary(TaskRecordSchema, bytes));
  }

  async put(record: TaskRecord): Promise<void> {
    this.#records.set(record.task?.id ?? "", toBinary(TaskRecordSchema, record));
  }

  async delete(taskId: TaskId): Promise<void> {
    this.#records.delete(taskId);
  }

  async loadEndpoints(): Promise<EndpointsRecord | undefined> {
    return this.#endpoints && fromBinary(EndpointsRecordSchema, this.#endpoints);
  }

  async putEndpoints(record: EndpointsRecord): Promise<void> {
    this.#endpoints = toBinary(EndpointsRecordSchema, record);
  }
}
