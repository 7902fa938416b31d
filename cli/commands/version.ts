import { SwarmError } from "../../common/base/error.ts";
import { projectVersion } from "../../common/base/version.ts";
import type { Command, Invocation } from "../command.ts";
import { renderObject } from "../output/format.ts";

export const command: Command = {
  usage: "version [OPTIONS]",
  summary: "Show the version information",
  flags: { format: { kind: "text", short: "f", value: "string", help: "Format output: 'json' or a Go template" } },
  words: { min: 0, max: 0 },
  run,
};

/** Without a manager the client's own version is still told; the exit code says that half is missing. */
async function run({ flags, io, connect }: Invocation): Promise<number> {
  const client = {
    Version: projectVersion(),
    NodeVersion: process.version,
    Os: process.platform,
    Arch: process.arch,
  };
  const { server, failure } = await serverVersion(connect);
  const format = flags.text("format");
  if (format !== undefined) {
    io.out(renderObject({ Client: client, Server: server }, format));
  } else {
    const lines = [
      "Client:",
      ` Version:    ${client.Version}`,
      ` Node:       ${client.NodeVersion}`,
      ` OS/Arch:    ${client.Os}/${client.Arch}`,
    ];
    if (server) {
      lines.push("", "Server:", ` Version:    ${server.Version}`, ` Manager ID: ${server.ManagerID}`);
      lines.push(
        ` Managers:   ${server.ManagerVersions.join(", ")}`,
        ` Agents:     ${server.AgentVersions.join(", ")}`,
      );
    }
    io.out(`${lines.join("\n")}\n`);
  }
  if (failure === undefined) return 0;
  io.err(`swarmctl: ${failure.message}\n`);
  return 1;
}

async function serverVersion(connect: Invocation["connect"]) {
  try {
    const info = await (await connect()).getInfo({});
    const server = {
      Version: info.version,
      ManagerID: info.managerId,
      // While a cluster is upgraded there are two.
      ManagerVersions: [...new Set(info.managers.map(({ version }) => version))].toSorted(),
      AgentVersions: Object.keys(info.agentVersions).toSorted(),
    };
    return { server, failure: undefined };
  } catch (reason) {
    if (!(reason instanceof SwarmError)) throw reason;
    return { server: undefined, failure: reason };
  }
}
