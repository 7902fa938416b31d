import { toDuration } from "../../common/model/duration.ts";
import type { Command, Invocation } from "../command.ts";
import { durationFlagMs } from "../flags/values.ts";
import { refuseFlags, SWARM_CA_REFUSED } from "../refused.ts";
import { UsageError } from "../usage-error.ts";
import { waitForRotation } from "../wait-rotation.ts";

export const command: Command = {
  usage: "swarm ca [OPTIONS]",
  summary: "Display and rotate the root CA",
  flags: {
    "ca-cert": {
      kind: "text",
      value: "file",
      help: "Path to the PEM-formatted root CA certificate to use for the new cluster",
    },
    "ca-key": { kind: "text", value: "file", help: "Path to the PEM-formatted root CA key to use for the new cluster" },
    "cert-expiry": { kind: "text", value: "duration", help: "Validity period for node certificates, 1h or more" },
    detach: {
      kind: "boolean",
      short: "d",
      help: "Exit immediately instead of waiting for the root rotation to converge",
    },
    quiet: { kind: "boolean", short: "q", help: "Suppress progress output" },
    rotate: {
      kind: "boolean",
      help: "Rotate the swarm CA - if no certificate or key are provided, new ones will be generated",
    },
    ...SWARM_CA_REFUSED.flags,
  },
  words: { min: 0, max: 0 },
  run,
};

async function run(invocation: Invocation): Promise<number> {
  const { flags, io, connect } = invocation;
  refuseFlags(flags, SWARM_CA_REFUSED);
  if (!flags.on("rotate")) {
    const flag = ["ca-cert", "ca-key", "cert-expiry"].find((name) => flags.has(name));
    if (flag !== undefined) throw new UsageError(`--${flag} requires the --rotate flag to update the CA`);
    const { root } = await (await connect()).getCa({});
    io.out(`${root.trim()}\n`);
    return 0;
  }
  const lifetimeMs = durationFlagMs(flags, "cert-expiry");
  const files = authorityFiles(invocation);
  const client = await connect();
  await client.rotateCa({
    ...files,
    ...(lifetimeMs === undefined ? {} : { certificateLifetime: toDuration(lifetimeMs) }),
  });
  return flags.on("detach") ? 0 : await waitForRotation(invocation);
}

/** Docker takes the certificate alone where a CFSSL service has the key; here the key comes by a file, too. */
function authorityFiles({ flags, io }: Invocation): { readonly certificates: string; readonly key: string } {
  const [certificate, key] = [flags.text("ca-cert"), flags.text("ca-key")];
  if (certificate !== undefined && key === undefined)
    throw new UsageError("--ca-cert requires --ca-key to be provided as well");
  if (certificate === undefined && key !== undefined)
    throw new UsageError("--ca-key requires --ca-cert to be provided as well");
  const read = (path: string | undefined) => (path === undefined ? "" : io.readFile(path));
  return { certificates: read(certificate), key: read(key) };
}
