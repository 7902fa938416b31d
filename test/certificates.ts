/** Certificates for tests, made by openssl as an administrator would make them. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** PEM files of one identity. */
export interface CertificateFiles {
  readonly certificate: string;
  readonly key: string;
}

/** What the certificate says. Times as openssl writes them: "20200101000000Z". */
export interface CertificateRequest {
  readonly name: string;
  /** "DNS:localhost,IP:127.0.0.1". */
  readonly subjectAltName?: string;
  /** "clientAuth". */
  readonly extendedKeyUsage?: string;
  readonly notBefore?: string;
  readonly notAfter?: string;
  readonly organizationalUnit?: string;
}

/** An authority in a folder of its own, with ECDSA keys: RSA would take seconds. */
export class CertificateAuthority {
  readonly #folder: string;
  readonly #name: string;
  /** Its certificate. */
  readonly file: string;

  constructor(folder: string, name: string) {
    this.#folder = join(folder, name);
    this.#name = name;
    mkdirSync(this.#folder, { recursive: true });
    this.file = join(this.#folder, "ca.pem");
    this.#openssl(
      "req",
      "-x509",
      "-days",
      "2",
      "-subj",
      `/CN=${name}`,
      ...this.#newKey("ca-key.pem"),
      "-out",
      this.file,
    );
    writeFileSync(join(this.#folder, "index.txt"), "");
    writeFileSync(join(this.#folder, "serial"), "01\n");
  }

  /** Issues `NAME.pem` and `NAME-key.pem` (0600). */
  issue(request: CertificateRequest): CertificateFiles {
    const { name, organizationalUnit, notBefore = "20200101000000Z", notAfter = "20480101000000Z" } = request;
    const files = { certificate: join(this.#folder, `${name}.pem`), key: join(this.#folder, `${name}-key.pem`) };
    const unit = organizationalUnit === undefined ? "" : `/OU=${organizationalUnit}`;
    const csr = join(this.#folder, `${name}.csr`);
    this.#openssl("req", "-subj", `/CN=${name}${unit}`, ...this.#newKey(`${name}-key.pem`), "-out", csr);
    const config = join(this.#folder, `${name}.cnf`);
    writeFileSync(config, this.#config(request));
    const times = ["-startdate", notBefore, "-enddate", notAfter];
    this.#openssl("ca", "-batch", "-notext", "-config", config, ...times, "-in", csr, "-out", files.certificate);
    return files;
  }

  /** The whole identity as text. */
  pem({ certificate, key }: CertificateFiles): {
    readonly ca: string;
    readonly certificate: string;
    readonly key: string;
  } {
    const read = (path: string) => readFileSync(path, "utf8");
    return { ca: read(this.file), certificate: read(certificate), key: read(key) };
  }

  #newKey(file: string): readonly string[] {
    const path = join(this.#folder, file);
    return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", path];
  }

  #config({ subjectAltName, extendedKeyUsage }: CertificateRequest): string {
    const lines = [
      "[ca]\ndefault_ca=own\n[own]",
      `database=${this.#folder}/index.txt\nserial=${this.#folder}/serial\nnew_certs_dir=${this.#folder}`,
      `certificate=${this.file}\nprivate_key=${this.#folder}/ca-key.pem`,
      "default_md=sha256\npolicy=any\nunique_subject=no\nx509_extensions=leaf",
      "[any]\ncommonName=supplied\norganizationalUnitName=optional\n[leaf]\nbasicConstraints=CA:FALSE",
      ...(subjectAltName === undefined ? [] : [`subjectAltName=${subjectAltName}`]),
      ...(extendedKeyUsage === undefined ? [] : [`extendedKeyUsage=${extendedKeyUsage}`]),
    ];
    return `${lines.join("\n")}\n`;
  }

  #openssl(...args: readonly string[]): void {
    try {
      execFileSync("openssl", args, { stdio: ["ignore", "pipe", "pipe"] });
    } catch (reason) {
      const { stderr } = reason as { readonly stderr?: Buffer };
      throw new Error(`openssl ${args.join(" ")} (${this.#name}): ${stderr?.toString() ?? String(reason)}`);
    }
  }
}
