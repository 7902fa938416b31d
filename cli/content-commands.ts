/**
 * The commands of secrets and configs, which differ in a word: `secret create`, `config create`, … Docker's words, flags and
 * columns (docker/cli cli/command/secret, cli/command/config), and `update`, which Docker does not have.
 */
import { SwarmError } from "../common/base/error.ts";
import { timestampMs } from "../common/model/duration.ts";
import { humanDuration } from "../common/model/units.ts";
import { CONFIG_BYTES_MAX } from "../common/model/validate-content.ts";
import { UpdateContentRequest_OnChange } from "../proto/gen/swarm/v1/control_pb.js";
import type { Config, Secret } from "../proto/gen/swarm/v1/objects_pb.js";
import { forEachWord, retryAborted } from "./calls.ts";
import type { Command, ControlClient, Invocation } from "./command.ts";
import { FILTER_FLAG, type Filters, parseFilters, passes, passesLabels } from "./filters.ts";
import { INSPECT_FLAGS, LIST_FLAGS } from "./flags/list-flags.ts";
import { parsePair } from "./flags/lists.ts";
import type { FlagTable } from "./flags/parse.ts";
import { parsedOrThrow } from "./flags/values.ts";
import { WAIT_FLAGS } from "./flags/wait-flags.ts";
import { inspectEach } from "./inspect.ts";
import type { Io } from "./io.ts";
import { contentJson, contentPretty } from "./output/content-json.ts";
import { LABELS, type Listing, type Row, renderList, renderObjects } from "./output/format.ts";
import { UsageError } from "./usage-error.ts";
import { waitAsAsked } from "./wait.ts";

/** "secret" or "config". */
type Kind = "secret" | "config";
type ContentObject = Secret | Config;

const MANY = Number.POSITIVE_INFINITY;
const NONE = new Uint8Array();

/** `secret create [OPTIONS] SECRET [file|-]`. */
export function createContentCommand(kind: Kind): Command {
  const noun = kind.toUpperCase();
  const driver: FlagTable =
    kind === "secret" ? { driver: { kind: "text", short: "d", value: "string", help: "Secret driver" } } : {};
  return {
    usage: `${kind} create [OPTIONS] ${noun} [file|-]`,
    summary: `Create a ${kind} from a file or STDIN`,
    flags: {
      label: { kind: "list", short: "l", value: "list", help: kind === "secret" ? "Secret labels" : "Config labels" },
      "template-driver": { kind: "text", value: "string", help: "Template driver" },
      ...driver,
    },
    words: { min: 1, max: 2 },
    async run({ flags, words, io, connect }) {
      const [name = "", file] = words;
      if (flags.has("driver")) {
        throw new SwarmError(
          "unimplemented",
          "--driver: there are no secret drivers; give the secret's content instead",
        );
      }
      const labels = Object.fromEntries(flags.list("label").map((text) => parsedOrThrow("label", text, parsePair)));
      const data = await readContent(file, io);
      const client = await connect();
      const request = { name, labels, templateDriver: flags.text("template-driver") ?? "", data };
      const made =
        kind === "secret" ? (await client.createSecret(request)).secret : (await client.createConfig(request)).config;
      io.out(`${made?.id ?? ""}\n`);
      return 0;
    },
  };
}

/** `secret update [OPTIONS] SECRET [file|-]`: new labels, new content, or both. */
export function updateContentCommand(kind: Kind): Command {
  return {
    usage: `${kind} update [OPTIONS] ${kind.toUpperCase()} [file|-]`,
    summary: `Change a ${kind}'s content or labels; services that use it follow`,
    flags: {
      ...WAIT_FLAGS,
      "label-add": { kind: "list", value: "list", help: "Add or update a label" },
      "label-rm": { kind: "list", value: "list", help: "Remove a label if exists" },
      "on-change": {
        kind: "text",
        value: "string",
        help: 'What becomes of running tasks ("roll": replaced as the service\'s update policy says, "signal=NAME": the file is replaced in place and the process gets the signal, "none": the file is replaced)',
        default: '"roll"',
      },
    },
    words: { min: 1, max: 2 },
    run: (invocation) => update(kind, invocation),
  };
}

async function update(kind: Kind, invocation: Invocation): Promise<number> {
  const { flags, words, io, connect } = invocation;
  const [reference = "", file] = words;
  const added = flags.list("label-add").map((text) => parsedOrThrow("label-add", text, parsePair));
  const removed = new Set(flags.list("label-rm"));
  const relabelled = added.length + removed.size > 0;
  if (file === undefined && !relabelled) throw new UsageError("nothing to change: name a file (or -), or give labels");
  const onChange = parseOnChange(flags.text("on-change") ?? "roll");
  const data = file === undefined ? undefined : await readContent(file, io);
  const client = await connect();
  const serviceIds = await retryAborted(async () => {
    const object = await find(client, kind, reference);
    const kept = Object.entries(object.spec?.labels ?? {}).filter(([key]) => !removed.has(key));
    const labels = { labels: Object.fromEntries([...kept, ...added]) };
    const request = {
      id: object.id,
      version: object.meta?.version ?? 0n,
      ...(relabelled ? { labels } : {}),
      ...(data === undefined ? {} : { data }),
      ...onChange,
    };
    const answer = kind === "secret" ? await client.updateSecret(request) : await client.updateConfig(request);
    return answer.serviceIds;
  });
  io.out(`${reference}\n`);
  if (serviceIds.length === 0) return 0;
  const { services } = await client.listServices({ references: serviceIds });
  const targets = services.flatMap(({ service }) =>
    service ? [{ serviceId: service.id, name: service.name, specVersion: service.specVersion, rollback: false }] : [],
  );
  return await waitAsAsked(invocation, targets);
}

function parseOnChange(text: string): { readonly onChange: UpdateContentRequest_OnChange; readonly signal: string } {
  if (text === "roll") return { onChange: UpdateContentRequest_OnChange.ROLL, signal: "" };
  if (text === "none") return { onChange: UpdateContentRequest_OnChange.IN_PLACE, signal: "" };
  const signal = /^signal=(.+)$/.exec(text)?.[1];
  if (signal !== undefined) return { onChange: UpdateContentRequest_OnChange.IN_PLACE, signal };
  throw new UsageError(`invalid argument ${JSON.stringify(text)} for --on-change: roll, signal=NAME or none`);
}

/** `secret ls`. */
export function listContentCommand(kind: Kind): Command {
  return {
    usage: `${kind} ls [OPTIONS]`,
    summary: `List ${kind}s`,
    flags: { ...LIST_FLAGS, filter: FILTER_FLAG },
    words: { min: 0, max: 0 },
    async run({ flags, io, clock, connect }) {
      const filters = parseFilters(flags.list("filter"), ["id", "label", "name"]);
      const objects = await list(await connect(), kind, []);
      const nowMs = clock.nowMs();
      const rows = objects.filter((object) => isWanted(object, filters)).map((object) => rowOf(object, nowMs));
      io.out(renderList(LISTINGS[kind], rows, { format: flags.text("format"), quiet: flags.on("quiet") }));
      return 0;
    },
  };
}

const COLUMNS = { ID: "ID", Name: "NAME", CreatedAt: "CREATED", UpdatedAt: "UPDATED" };
const LISTINGS: Readonly<Record<Kind, Listing>> = {
  // Docker's column of drivers, which says nothing here, is kept for scripts that count columns.
  secret: {
    columns: { ID: "ID", Name: "NAME", Driver: "DRIVER", CreatedAt: "CREATED", UpdatedAt: "UPDATED" },
    key: "ID",
  },
  config: { columns: COLUMNS, key: "ID" },
};

function isWanted({ id, name, spec }: ContentObject, filters: Filters): boolean {
  return (
    passes(filters, "id", (value) => id.startsWith(value)) &&
    passes(filters, "name", (value) => name.startsWith(value)) &&
    passesLabels(filters, "label", spec?.labels)
  );
}

function rowOf({ id, name, meta, spec, contentVersion }: ContentObject, nowMs: number): Row {
  const ago = (ms: number | undefined) => (ms === undefined ? "" : `${humanDuration(Math.max(0, nowMs - ms))} ago`);
  const labels = Object.entries(spec?.labels ?? {}).map(([key, value]) => `${key}=${value}`);
  return {
    ID: id,
    Name: name,
    Driver: "",
    CreatedAt: ago(timestampMs(meta?.createdAt)),
    UpdatedAt: ago(timestampMs(meta?.updatedAt)),
    Labels: labels.join(","),
    Version: String(contentVersion),
    [LABELS]: spec?.labels ?? {},
  };
}

/** `secret inspect`. A config's data is in it; a secret's is nowhere. */
export function inspectContentCommand(kind: Kind): Command {
  const noun = kind.toUpperCase();
  return {
    usage: `${kind} inspect [OPTIONS] ${noun} [${noun}...]`,
    summary: `Display detailed information on one or more ${kind}s`,
    flags: INSPECT_FLAGS,
    words: { min: 1, max: MANY },
    async run({ flags, words, io, connect }) {
      const pretty = flags.on("pretty");
      if (pretty && flags.has("format")) throw new UsageError("--format is incompatible with human friendly format");
      const client = await connect();
      return await inspectEach(words, io, {
        find: (reference) => findWithData(client, kind, reference),
        show: (found) =>
          pretty
            ? found.map(({ object, data }) => contentPretty(object, data)).join("\n")
            : renderObjects(
                found.map(({ object, data }) => contentJson(object, data)),
                flags.text("format"),
              ),
      });
    },
  };
}

/** The one that `reference` names; a secret's data is not to be had. */
async function findWithData(
  client: ControlClient,
  kind: Kind,
  reference: string,
): Promise<readonly { readonly object: ContentObject; readonly data: Uint8Array | undefined }[]> {
  const references = [reference];
  if (kind === "secret") {
    return (await client.listSecrets({ references })).secrets.map((object) => ({ object, data: undefined }));
  }
  const { configs } = await client.listConfigs({ references, withData: true });
  return configs.flatMap(({ config, data }) => (config ? [{ object: config, data }] : []));
}

/** `secret rm`. */
export function removeContentCommand(kind: Kind): Command {
  const noun = kind.toUpperCase();
  return {
    usage: `${kind} rm ${noun} [${noun}...]`,
    summary: `Remove one or more ${kind}s`,
    flags: {},
    words: { min: 1, max: MANY },
    async run({ words, io, connect }) {
      const client = await connect();
      return await forEachWord(words, io, async (reference) => {
        const { id } = await find(client, kind, reference);
        await (kind === "secret" ? client.removeSecret({ id }) : client.removeConfig({ id }));
        return reference;
      });
    },
  };
}

async function list(client: ControlClient, kind: Kind, references: string[]): Promise<readonly ContentObject[]> {
  if (kind === "secret") return (await client.listSecrets({ references })).secrets;
  return (await client.listConfigs({ references })).configs.flatMap(({ config }) => config ?? []);
}

async function find(client: ControlClient, kind: Kind, reference: string): Promise<ContentObject> {
  const [object] = await list(client, kind, [reference]);
  if (object === undefined) throw new SwarmError("not_found", `no such ${kind}: ${reference}`);
  return object;
}

/** The bytes of a file, or of stdin for `-` and, as with Docker, for nothing. One byte too many says that there are more. */
async function readContent(file: string | undefined, io: Io): Promise<Uint8Array> {
  if (file !== undefined && file !== "-") return io.readBytes(file, CONFIG_BYTES_MAX + 1);
  if (io.stdin.isTTY)
    throw new UsageError("the content is read from stdin, which is a terminal: name a file, or - to type it");
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of io.stdin) {
    chunks.push(Buffer.from(chunk));
    bytes += chunk.length;
    if (bytes > CONFIG_BYTES_MAX) throw new UsageError(`stdin: more than ${CONFIG_BYTES_MAX} bytes`);
  }
  return chunks.length === 0 ? NONE : Buffer.concat(chunks);
}
