/** How far a rotation of the root is, in Docker's words. Pure: an answer of the API in, lines out. */
import { createHash } from "node:crypto";
import { escapeControls } from "../../common/model/text.ts";
import type { GetCaResponse } from "../../proto/gen/swarm/v1/control_pb.js";
import { bar } from "./progress.ts";

/** Docker's: a narrower terminal has numbers only. */
const COLUMNS_WITH_BARS = 111;

/** Lines for a terminal, to be redrawn in place; `columns` bounds their width. */
export function rotationLines(state: GetCaResponse, columns: number): readonly string[] {
  const { nodes, nodesRenewed, nodesTrusting } = state;
  const drawn = (done: number) => {
    const picture = columns < COLUMNS_WITH_BARS ? "" : `${bar(nodes === 0 ? 1 : done / nodes)} `;
    return `${picture}${done}/${nodes} nodes`;
  };
  return [
    `desired root digest: ${rootDigest(state)}`,
    `  rotated TLS certificates:  ${drawn(nodesRenewed)}`,
    `  rotated CA certificates:   ${drawn(nodesTrusting)}`,
    ...waitingLines(state),
  ].map((line) => escapeControls(line).slice(0, Math.max(20, columns - 1)));
}

/** The same as plain lines, for logs. */
export function rotationNews(state: GetCaResponse): readonly string[] {
  const { nodes } = state;
  return [
    `desired root digest: ${rootDigest(state)}`,
    `rotated TLS certificates: ${state.nodesRenewed}/${nodes} nodes`,
    `rotated CA certificates: ${state.nodesTrusting}/${nodes} nodes`,
    ...waitingLines(state),
  ].map(escapeControls);
}

/** Docker hashes the text. */
function rootDigest({ root }: GetCaResponse): string {
  return `sha256:${createHash("sha256").update(root).digest("hex")}`;
}

function waitingLines({ away, nodesAway }: GetCaResponse): readonly string[] {
  if (nodesAway === 0) return [];
  const more = nodesAway > away.length ? [`and ${nodesAway - away.length} more`] : [];
  const what = nodesAway === 1 ? "1 node that is down" : `${nodesAway} nodes that are down`;
  const names = away.length === 0 ? "" : `: ${[...away, ...more].join(", ")}`;
  return [`waiting for ${what}${names}`];
}
