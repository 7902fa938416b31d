/** The demo image: busybox's web server, which answers with its node, task and version. */
import { buildImage, busyboxFiles } from "../../test/images.ts";
import { directory, file } from "../../test/tar.ts";

/** A first process hears a signal only if it asks for it: without the trap each stop would take its whole grace time. */
const SERVER = `#!/bin/sh
trap 'exit 0' TERM
echo "serving version $DEMO_VERSION as $SWARM_TASK_NAME"
httpd -f -p 80 -h /www &
wait
`;

const ANSWER = `#!/bin/sh
echo "$REQUEST_METHOD $REQUEST_URI from $REMOTE_ADDR" >/proc/1/fd/1
printf 'Content-Type: text/plain\\r\\n\\r\\n'
printf 'Hello from %s on %s, version %s\\n' "$SWARM_TASK_NAME" "$SWARM_NODE_HOSTNAME" "$DEMO_VERSION"
`;

const NANOSECONDS_PER_MS = 1_000_000;

/** Writes an archive with the image `demo/web:<version>` into a directory; returns its path. Needs busybox-static. */
export function writeDemoImage(into: string, version: string): string {
  const program = file("bin/web", SERVER, 0o755);
  const site = [
    directory("www"),
    directory("www/cgi-bin"),
    file("www/up", "up\n"),
    file("www/cgi-bin/index.cgi", ANSWER, 0o755),
  ];
  return buildImage({
    name: `demo/web:${version}`,
    directory: into,
    layers: [{ files: busyboxFiles() }, { files: [program, ...site] }],
    config: {
      Env: ["PATH=/bin", `DEMO_VERSION=${version}`],
      Cmd: ["web"],
      ExposedPorts: { "80/tcp": {} },
      Healthcheck: {
        Test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/up"],
        Interval: 5_000 * NANOSECONDS_PER_MS,
        StartInterval: 100 * NANOSECONDS_PER_MS,
        StartPeriod: 5_000 * NANOSECONDS_PER_MS,
      },
    },
  });
}
