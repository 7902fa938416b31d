/** A secret or config in the shape of Docker's API (GET /secrets/{id}, /configs/{id}), and its lines for people. Pure. */
import { escapeControls } from "../../common/model/text.ts";
import type { Config, Secret } from "../../proto/gen/swarm/v1/objects_pb.js";
import { labelsJson, timeJson } from "./json-parts.ts";

/** `data` is a config's; a secret has none to show. */
export function contentJson(object: Secret | Config, data: Uint8Array | undefined): Record<string, unknown> {
  const { id, meta, name, spec, contentVersion, sizeBytes } = object;
  return {
    ID: id,
    Version: { Index: Number(meta?.version ?? 0n) },
    CreatedAt: timeJson(meta?.createdAt),
    UpdatedAt: timeJson(meta?.updatedAt),
    Spec: {
      Name: name,
      Labels: labelsJson(spec?.labels),
      ...(spec?.templateDriver ? { Templating: { Name: spec.templateDriver } } : {}),
      ...(data ? { Data: Buffer.from(data).toString("base64") } : {}),
    },
    ContentVersion: Number(contentVersion),
    Size: Number(sizeBytes),
  };
}

/** `secret inspect --pretty`, `config inspect --pretty`. */
export function contentPretty(object: Secret | Config, data: Uint8Array | undefined): string {
  const { id, meta, name, spec, contentVersion, sizeBytes } = object;
  const labels = Object.entries(spec?.labels ?? {}).map(([key, value]) => ` - ${key}=${value}`);
  const lines = [
    `ID:\t\t\t${id}`,
    `Name:\t\t\t${name}`,
    ...(labels.length > 0 ? ["Labels:", ...labels] : []),
    ...(spec?.templateDriver ? [`Template driver:\t${spec.templateDriver}`] : []),
    `Created at:\t\t${timeJson(meta?.createdAt) ?? ""}`,
    `Updated at:\t\t${timeJson(meta?.updatedAt) ?? ""}`,
    `Version:\t\t${contentVersion}`,
    `Size:\t\t\t${sizeBytes} bytes`,
  ].map((line) => line.split("\t").map(escapeControls).join("\t"));
  if (data === undefined) return `${lines.join("\n")}\n`;
  const text = new TextDecoder().decode(data).split("\n").map(escapeControls).join("\n");
  return `${lines.join("\n")}\nData:\n${text}${text.endsWith("\n") ? "" : "\n"}`;
}
