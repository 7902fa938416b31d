/** Records what `docker stack config` makes of the corpus of stack files: `node test/record-stack-configs.ts`. Needs the docker client. */
import { writeFileSync } from "node:fs";
import {
  askDocker,
  caseNames,
  DOCKER_VERSION,
  dockerVersion,
  recordable,
  recordingPath,
} from "../cli/stack/test-docker.ts";

const version = dockerVersion();
if (version !== DOCKER_VERSION) {
  process.stderr.write(`docker ${DOCKER_VERSION} is wanted, not ${version ?? "none"}\n`);
  process.exit(1);
}
for (const name of caseNames()) writeFileSync(recordingPath(name), recordable(askDocker(name)));
