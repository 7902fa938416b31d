/** swarm-agent: checks the host, opens its data directory and socket, and runs an AgentHost until a signal comes. */
import { existsSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { systemClock } from "../common/base/clock.ts";
import { openDataDirectory } from "../common/base/data-directory.ts";
import { SwarmError } from "../common/base/error.ts";
import type { NodeId } from "../common/base/id.ts";
import { type Logger, openLogger } from "../common/base/logger.ts";
import { dieOfBugs, runProgram } from "../common/base/program.ts";
import { systemRandom } from "../common/base/random.ts";
import { stopSignal } from "../common/base/stop-signal.ts";
import { projectVersion } from "../common/base/version.ts";
import { GrpcServer } from "../common/rpc/grpc-server.ts";
import { LocalAgent } from "../proto/gen/swarm/v1/local_pb.js";
import { AgentHost } from "./agent-host.ts";
import { createLocalAgent } from "./local-agent.ts";
import { runProbes } from "./network-probe.ts";
import { purgeNode, SHIM_PATH } from "./node.ts";
import { type AgentSettings, agentSettings, describeProgram } from "./options.ts";
import { type HostFacts, readHostFacts } from "./runtime/host-facts.ts";

/** When memory runs out the kernel shall take containers before the agent and their supervisors. */
const OOM_SCORE_ADJUST = "-500";

function main(): Promise<number> {
  return runProgram(describeProgram(projectVersion()), async (values) => {
    const settings = agentSettings(values);
    if (settings.probe) {
      await runProbes(systemClock, process.stdin, (text) => process.stdout.write(text));
      return;
    }
    const logger = openLogger("swarm-agent", settings.log);
    dieOfBugs(logger);
    await (settings.purge ? purge(settings, logger) : run(settings, logger));
  });
}

async function run(settings: AgentSettings, logger: Logger): Promise<void> {
  const facts = await checkHost();
  using directory = await openDataDirectory<NodeId>(settings.dataDirectory, "node-id", systemRandom);
  sparedByOom(logger);
  const stop = stopSignal(logger, "agent stops");
  const host = new AgentHost({ settings, facts, directory, logger });
  await using local = new GrpcServer({ logger });
  local.addService(LocalAgent, createLocalAgent(host));
  await local.listen(`unix:${settings.socket}`);
  await host.run(stop);
}

/** Ends the node's containers and removes what it made on this host; a directory that is not there is no error. */
async function purge(settings: AgentSettings, logger: Logger): Promise<void> {
  if (!existsSync(settings.dataDirectory)) return;
  const facts = await checkHost();
  using directory = await openDataDirectory<NodeId>(settings.dataDirectory, "node-id", systemRandom);
  const { id: nodeId } = directory;
  const signal = stopSignal(logger, "agent stops");
  await purgeNode({ settings, nodeId, facts, logger }, { removeAll: true }, signal);
  logger.info({ nodeId, dataDirectory: directory.path }, "node purged");
}

/** A host inside a container may lack the right (CAP_SYS_RESOURCE); the agent runs all the same. */
function sparedByOom(logger: Logger): void {
  try {
    writeFileSync("/proc/self/oom_score_adj", OOM_SCORE_ADJUST);
  } catch (reason) {
    logger.warn({ err: reason }, "cannot ask the kernel to spare the agent when memory runs out");
  }
}

/** Refuses a host on which no container can run, with the remedy. */
async function checkHost(): Promise<HostFacts> {
  if (process.getuid?.() !== 0) throw lacking("must run as root: containers need namespaces, mounts and cgroups");
  if (!existsSync(SHIM_PATH)) throw lacking(`${SHIM_PATH} is missing: build it with 'make -C agent/shim'`);
  const facts = await readHostFacts((path) => readFile(path, "utf8"), process.arch);
  if (!facts.overlay) throw lacking("the kernel has no overlayfs: load it with 'modprobe overlay'");
  return facts;
}

function lacking(problem: string): SwarmError {
  return new SwarmError("failed_precondition", problem);
}

void main().then((code) => process.exit(code));
