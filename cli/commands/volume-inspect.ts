import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { VolumeView } from "../../proto/gen/swarm/v1/control_pb.js";
import type { Command } from "../command.ts";
import { INSPECT_FLAGS } from "../flags/list-flags.ts";
import { inspectEach } from "../inspect.ts";
import { renderObjects } from "../output/format.ts";
import { labelsOf } from "../output/volume-words.ts";

export const command: Command = {
  usage: "volume inspect [OPTIONS] VOLUME [VOLUME...]",
  summary: "Display which nodes have a volume, since when, and its size there",
  flags: { format: INSPECT_FLAGS.format },
  words: { min: 1, max: Number.POSITIVE_INFINITY },
  async run({ flags, words, io, connect }) {
    const client = await connect();
    return await inspectEach(words, io, {
      find: async (name) => (await client.listVolumes({ names: [name] })).volumes,
      show: (volumes) => renderObjects(volumes.map(jsonOf), flags.text("format")),
    });
  },
};

/** Docker's object with a list of copies in place of one mount point; a size that is not known is -1, as Docker has it. */
function jsonOf(view: VolumeView): unknown {
  const { name, copies, serviceNames, volume: made } = view;
  const createdAt = made?.meta?.createdAt;
  return {
    ...(createdAt && { CreatedAt: timestampDate(createdAt).toISOString() }),
    Driver: "local",
    Labels: labelsOf(view),
    Name: name,
    Options: made?.spec?.options ?? {},
    Scope: "local",
    Services: serviceNames,
    Nodes: copies.map(({ nodeId, hostname, volume }) => ({
      ID: nodeId,
      Hostname: hostname,
      CreatedAt: volume?.createdAt ? timestampDate(volume.createdAt).toISOString() : "",
      UsageData: { Size: Number(volume?.sizeBytes ?? -1n) },
    })),
  };
}
