/** The demo image: busybox's web server, which answers with its node, task and version. */
import { buildImage, busyboxFiles } from "../../test/images.ts";
import { directory, file } from "../../test/tar.ts";

const ANSWER = `#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
printf 'Hello from %s on %s, version %s\\n' "$SWARM_TASK_NAME" "$SWARM_NODE_HOSTNAME" "$DEMO_VERSION"
`;

/** Writes an archive with the image `demo/web:<version>` into a directory; returns its path. Needs busybox-static. */
export function writeDemoImage(into: string, version: string): string {
  return buildImage({
    name: `demo/web:${version}`,
    directory: into,
    layers: [
      { files: busyboxFiles() },
      { files: [directory("www"), directory("www/cgi-bin"), file("www/cgi-bin/index.cgi", ANSWER, 0o755)] },
    ],
    config: {
      Env: ["PATH=/bin", `DEMO_VERSION=${version}`],
      Cmd: ["httpd", "-f", "-v", "-p", "80", "-h", "/www"],
      ExposedPorts: { "80/tcp": {} },
      Healthcheck: {
        Test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/"],
        Interval: 5_000_000_000,
        StartInterval: 200_000_000,
        StartPeriod: 5_000_000_000,
      },
    },
  });
}
