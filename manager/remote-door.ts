/** The API for people with certificates of a CA of their own. */
import { systemClock } from "../common/base/clock.ts";
import type { Logger } from "../common/base/logger.ts";
import { nameOf } from "../common/pki/certificates.ts";
import { GrpcServer } from "../common/rpc/grpc-server.ts";
import { MutualTls } from "../common/rpc/tls.ts";
import { loadTlsFiles, type ServerTlsFiles } from "../common/rpc/tls-files.ts";

/** A server for clients with a certificate, who may do everything. SIGHUP reads the files again: bad ones are logged, and the old ones stay. */
export function openRemoteDoor(files: ServerTlsFiles, logger: Logger): GrpcServer {
  const load = () => {
    const { pem, warnings } = loadTlsFiles(files, { end: "server", nowMs: systemClock.nowMs() });
    for (const warning of warnings) logger.warn(warning);
    return pem;
  };
  const tls = new MutualTls(load());
  process.on("SIGHUP", () => {
    try {
      tls.renew(load());
      logger.info({ certificate: files.certificate }, "certificate renewed");
    } catch (reason) {
      logger.error({ err: reason }, "certificate not renewed");
    }
  });
  return new GrpcServer({
    ...{ logger, tls },
    identify: (certificate) => ({ kind: "operator", name: nameOf(certificate.subject) }),
  });
}
