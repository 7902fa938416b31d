/** Connects once by hand, to say in plain words why a TLS or plaintext connection to a manager does not come about. */
import type { X509Certificate } from "node:crypto";
import { isIP, connect as openSocket, type Socket } from "node:net";
import { connect as openTls, type TLSSocket } from "node:tls";
import { SwarmError } from "../common/base/error.ts";
import { certificatesOf, describeCertificate, validityProblem } from "../common/pki/certificates.ts";
import { type ClientTls, clientTlsOptions } from "../common/rpc/tls.ts";
import type { TlsFiles } from "../common/rpc/tls-files.ts";

/** What TLS is done with. */
export interface ProbeTls {
  readonly pem: ClientTls;
  readonly files: TlsFiles;
  readonly nowMs: number;
}

interface Target {
  readonly host: string;
  readonly port: number;
}

/** HTTP/2's preface and an empty SETTINGS frame (RFC 9113, 3.4): a server of gRPC answers with its own. */
const PREFACE = Buffer.concat([
  Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
  Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]),
]);
const SETTINGS = 4;
/** The first byte of a TLS record that carries an alert (RFC 8446, 5.1). */
const TLS_ALERT = 0x15;

/** Resolves when a plaintext gRPC server answers. Throws the system's error, or that TLS is spoken there. */
export async function probePlain(target: Target, signal: AbortSignal): Promise<void> {
  const socket = openSocket(target);
  const answer = await firstBytes(socket, signal, () => socket.write(PREFACE));
  if (answer === undefined || answer[0] === TLS_ALERT || answer[3] !== SETTINGS) {
    throw new SwarmError("unavailable", "does not answer as a manager without TLS: add --tlsverify if it has TLS");
  }
}

/**
 * Resolves when the server is who it should be and takes our certificate. In TLS 1.3 a server judges a client's
 * certificate after the client thinks itself connected, so the probe waits for the server's first bytes.
 */
export async function probeTls(target: Target, tls: ProbeTls, signal: AbortSignal): Promise<void> {
  const name = tls.pem.serverName ?? target.host;
  const socket = openTls({
    ...target,
    ...clientTlsOptions(tls.pem),
    ...(isIP(name) === 0 ? { servername: name } : {}),
    ALPNProtocols: ["h2"],
    // Judged here, where the certificate can be shown.
    rejectUnauthorized: false,
  });
  let problem: SwarmError | undefined;
  socket.once("secureConnect", () => {
    if (socket.authorized || tls.pem.verify === false) return;
    problem = new SwarmError("unauthenticated", serverProblem(socket, name, tls));
    socket.destroy(problem);
  });
  try {
    if ((await firstBytes(socket, signal, () => {})) !== undefined) return;
  } catch (reason) {
    if (problem !== undefined) throw problem;
    throw handshakeProblem(reason, tls);
  }
  throw new SwarmError("unauthenticated", rejection(tls));
}

/** What the other end says first; undefined when it closes without a word. */
function firstBytes(socket: Socket, signal: AbortSignal, connected: () => void): Promise<Buffer | undefined> {
  return new Promise((resolve, reject) => {
    const leave = () => socket.destroy(new SwarmError("canceled", "canceled"));
    signal.addEventListener("abort", leave, { once: true });
    socket.once("connect", connected);
    socket.once("data", (data: Buffer) => {
      resolve(data);
      socket.destroy();
    });
    socket.once("error", reject);
    socket.once("close", () => {
      signal.removeEventListener("abort", leave);
      resolve(undefined);
    });
  });
}

/** Why we do not believe the manager. */
function serverProblem(socket: TLSSocket, name: string, { files, pem, nowMs }: ProbeTls): string {
  const code = String(socket.authorizationError);
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) return `the manager shows no certificate (${code})`;
  const whose = `the manager's certificate (${describeCertificate(certificate)})`;
  const fault = validityProblem(certificate, nowMs);
  if (fault !== undefined) return `${whose} ${fault}`;
  if (code.includes("ALTNAME")) return `${whose} is for ${names(certificate)}, not for ${name}`;
  const authorities =
    pem.ca === undefined ? [] : certificatesOf(pem.ca).map((each) => each.subject.replaceAll("\n", ", "));
  const whom =
    files.ca === undefined
      ? "an authority that Node trusts; give --tlscacert"
      : `the CA in ${files.ca} (${authorities.join("; ")})`;
  return `${whose} is not signed by ${whom} [${code}]`;
}

function names(certificate: X509Certificate): string {
  return certificate.subjectAltName ?? "no host name at all (it has no subjectAltName)";
}

/** Why the handshake failed. The codes are OpenSSL's names of alerts (RFC 8446, 6.2). */
function handshakeProblem(reason: unknown, tls: ProbeTls): unknown {
  const code = reason instanceof Error && "code" in reason ? String(reason.code) : "";
  if (code.includes("CERTIFICATE_REQUIRED") || code.includes("ALERT")) {
    return new SwarmError("unauthenticated", rejection(tls), { cause: reason });
  }
  if (code === "ECONNRESET" && reason instanceof Error && /before secure TLS/.test(reason.message)) {
    return new SwarmError(
      "unavailable",
      "closed the connection instead of speaking TLS; is it a manager's --api-addr?",
    );
  }
  if (code.startsWith("ERR_SSL_") || code === "EPROTO") {
    return new SwarmError("unavailable", `does not speak TLS 1.3 (${code}); is it a manager's --api-addr?`);
  }
  return code === "ECONNRESET" ? new SwarmError("unauthenticated", rejection(tls), { cause: reason }) : reason;
}

/** The manager hung up on our certificate; it does not say why. */
function rejection({ files, pem }: ProbeTls): string {
  if (pem.certificate === undefined) {
    return "the manager demands a client certificate: give --tlscert and --tlskey (or put cert.pem and key.pem into ~/.swarm)";
  }
  const [leaf] = certificatesOf(pem.certificate);
  const whose = leaf === undefined ? "" : ` (${describeCertificate(leaf)})`;
  return `the manager refuses the client certificate ${files.certificate}${whose}: it is not signed by the CA of the manager's --tlscacert`;
}
