/** swarm-manager: opens the data directory and the host's socket, and runs a ManagerHost until a signal comes. */
import { systemClock } from "../common/base/clock.ts";
import { openDataDirectory } from "../common/base/data-directory.ts";
import type { NodeId } from "../common/base/id.ts";
import { type Logger, openLogger } from "../common/base/logger.ts";
import { dieOfBugs, runProgram } from "../common/base/program.ts";
import { systemRandom } from "../common/base/random.ts";
import { stopSignal } from "../common/base/stop-signal.ts";
import { projectVersion } from "../common/base/version.ts";
import { GrpcServer } from "../common/rpc/grpc-server.ts";
import { Control } from "../proto/gen/swarm/v1/control_pb.js";
import { LocalManager } from "../proto/gen/swarm/v1/local_pb.js";
import { createLocalManager, delegatedControl } from "./local-manager.ts";
import { ManagerHost } from "./manager-host.ts";
import { describeProgram, type ManagerSettings, managerSettings } from "./options.ts";

function main(): Promise<number> {
  return runProgram(describeProgram(projectVersion()), async (values) => {
    const settings = managerSettings(values, { isRoot: process.getuid?.() === 0, environment: process.env });
    const logger = openLogger("swarm-manager", settings.log);
    dieOfBugs(logger);
    const stop = stopSignal(logger, "manager stops");
    try {
      await run(settings, logger, stop);
    } catch (reason) {
      if (!stop.aborted) throw reason;
    }
    logger.info("manager stopped");
  });
}

async function run(settings: ManagerSettings, logger: Logger, stop: AbortSignal): Promise<void> {
  using directory = await openDataDirectory<NodeId>(settings.dataDirectory, "manager-id", systemRandom);
  const host = new ManagerHost({ settings, directory, logger });
  await using local = new GrpcServer({ logger, clock: systemClock, identity: { kind: "host" } });
  local.addService(LocalManager, createLocalManager(host));
  local.addService(Control, delegatedControl(host));
  await local.listen(`unix:${settings.socket}`);
  logger.info({ socket: settings.socket }, "socket open");
  await host.run(stop);
}

void main().then((code) => process.exit(code));
