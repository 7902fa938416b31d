import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { VolumeView } from "../../proto/gen/swarm/v1/control_pb.js";
import type { Command } from "../command.ts";
import { INSPECT_FLAGS } from "../flags/list-flags.ts";
import { renderObjects } from "../output/format.ts";

export const command: Command = {
  usage: "volume inspect [OPTIONS] VOLUME [VOLUME...]",
  summary: "Display which nodes have a volume, since when, and its size there",
  flags: { format: INSPECT_FLAGS.format },
  words: { min: 1, max: Number.POSITIVE_INFINITY },
  async run({ flags, words, io, connect }) {
    const { volumes } = await (await connect()).listVolumes({ names: [...words] });
    io.out(renderObjects(volumes.map(jsonOf), flags.text("format")));
    return 0;
  },
};

/** Docker's object with a list of copies in place of one mount point; a size that is not known is -1, as Docker has it. */
function jsonOf({ name, copies, serviceNames }: VolumeView): unknown {
  return {
    Name: name,
    Driver: "local",
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
