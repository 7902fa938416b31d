/** Secrets and configs: which a service reads, and what a stack brings along (docker/cli cli/compose/convert/compose.go). */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { StackFileSpecSchema } from "../../proto/gen/swarm/v1/control_pb.js";
import type { ContainerInit } from "./convert-container.ts";
import { NAMESPACE_LABEL, recordOf } from "./convert-container.ts";
import { absolutePath } from "./normalise.ts";
import { type ConvertContext, type ServiceSite, scopedName } from "./site.ts";
import { child, entriesOf, flagOf, itemsOf, numberOf, type Tree, textOf, under } from "./tree.ts";

type FileInit = MessageInitShape<typeof StackFileSpecSchema>;

/** SwarmKit's bounds (manager/controlapi: MaxSecretSize, MaxConfigSize). */
const KINDS = {
  secrets: { noun: "secret", bytesMax: 500 * 1024 },
  configs: { noun: "config", bytesMax: 1000 * 1024 },
} as const;
type Kind = keyof typeof KINDS;

/** The references of one service. */
export function convertFiles(site: ServiceSite): Pick<ContainerInit, "secrets" | "configs"> {
  return {
    secrets: references(site, "secrets").map(({ name, file }) => ({ secretName: name, file })),
    configs: references(site, "configs").map(({ name, file }) => ({ configName: name, file })),
  };
}

function references(
  site: ServiceSite,
  kind: Kind,
): readonly { name: string; file: { name: string; uid: string; gid: string; mode?: number } }[] {
  return itemsOf(site.at(kind)).flatMap((item, index) => {
    const path = `${kind}[${index}]`;
    site.note(path, item, path);
    const key = textOf(child(item, "source")) ?? "";
    const declared = declaration(site.context.file, kind, key);
    if (declared === undefined) {
      const reason =
        key === ""
          ? "source is required"
          : `undefined ${KINDS[kind].noun} ${JSON.stringify(key)}: declare it under ${kind}`;
      site.refuse(child(item, "source") ?? item, path, reason);
      return [];
    }
    const mode = numberOf(child(item, "mode"));
    return [
      {
        name: scopedName(site.context.stack, key, textOf(child(declared, "name"))),
        file: {
          name: textOf(child(item, "target")) ?? key,
          uid: textOf(child(item, "uid")) ?? "0",
          gid: textOf(child(item, "gid")) ?? "0",
          ...(mode === undefined ? {} : { mode }),
        },
      },
    ];
  });
}

function declaration(file: Tree, kind: Kind, key: string): Tree | undefined {
  const section = child(file, kind);
  return section?.kind === "map" ? section.entries.get(key)?.value : undefined;
}

/** What the stack brings, with its contents, and what must be there already. */
export function convertFileObjects(
  kind: Kind,
  context: ConvertContext,
): { readonly own: FileInit[]; readonly external: string[] } {
  const own: FileInit[] = [];
  const external: string[] = [];
  for (const [key, node] of entriesOf(child(context.file, kind))) {
    if (key.startsWith("x-") && node.kind !== "map") continue;
    const name = scopedName(context.stack, key, textOf(child(node, "name")));
    if (flagOf(child(node, "external")) === true) {
      external.push(name);
      continue;
    }
    const data = contentOf(kind, key, node, context);
    const labels = { ...recordOf(child(node, "labels")), [NAMESPACE_LABEL]: context.stack };
    const templateDriver = textOf(child(node, "template_driver")) ?? "";
    if (templateDriver !== "" && templateDriver !== "golang") {
      context.findings.problem(
        node.place,
        `${under(kind, key)}.template_driver`,
        `${JSON.stringify(templateDriver)} is not supported: only golang is`,
      );
    }
    own.push({ name, labels, templateDriver, ...(data && { data }) });
  }
  return { own, external };
}

function contentOf(kind: Kind, key: string, node: Tree, context: ConvertContext): Uint8Array | undefined {
  const { noun, bytesMax } = KINDS[kind];
  const path = under(kind, key);
  const refuse = (at: Tree | undefined, field: string, problem: string) => {
    context.findings.problem((at ?? node).place, field === "" ? path : `${path}.${field}`, problem);
    return undefined;
  };
  const driver = child(node, "driver");
  if (driver !== undefined) return refuse(driver, "driver", `${noun} drivers are not supported`);
  const read = readContent(node, context);
  if (read === undefined)
    return refuse(node, "", `needs one of file, environment${kind === "configs" ? ", content" : ""} or external: true`);
  if (typeof read.data === "string") return refuse(read.at, read.field, read.data);
  const size = read.data.byteLength;
  if (size > 0 && size <= bytesMax) return read.data;
  return refuse(
    read.at,
    read.field,
    `is ${size} bytes long: ${noun} data must be larger than 0 and at most ${bytesMax} bytes`,
  );
}

/** The content, or why it cannot be had; undefined where nothing is named. */
function readContent(
  node: Tree,
  { reader, variables, directory }: ConvertContext,
): { readonly at: Tree; readonly field: string; readonly data: Uint8Array | string } | undefined {
  const [file, environment, content] = ["file", "environment", "content"].map((name) => child(node, name));
  if (file !== undefined) {
    const path = textOf(file) ?? "";
    const bytes = reader.read(absolutePath(path, { directory, home: "" }));
    return { at: file, field: "file", data: bytes.ok ? bytes.value : `${path}: ${bytes.problem}` };
  }
  if (environment !== undefined) {
    const name = textOf(environment) ?? "";
    const value = Object.hasOwn(variables, name) ? variables[name] : undefined;
    const data = value === undefined ? `the variable ${name} is not set` : new TextEncoder().encode(value);
    return { at: environment, field: "environment", data };
  }
  return content === undefined
    ? undefined
    : { at: content, field: "content", data: new TextEncoder().encode(textOf(content) ?? "") };
}
