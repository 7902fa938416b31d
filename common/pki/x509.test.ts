/** Goal: who only reads certificates pays nothing for writing them. Method: a process that imports everything, and looks. */
import { execFileSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { expect, test } from "vitest";

const FOLDER = new URL(".", import.meta.url).pathname;
const MODULES = readdirSync(FOLDER).filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts"));
/** The library cannot be loaded without changing `Reflect`. */
const LOOK = "process.stdout.write(String('getMetadata' in Reflect) + ' ');";

test("the library is loaded at first use, from the sources and in a bundle", async () => {
  const imports = MODULES.map((name, index) => `import * as m${index} from ${JSON.stringify(join(FOLDER, name))};`);
  const used = `globalThis.used = [${MODULES.map((_, index) => `m${index}`)}];`;
  const text = `${imports.join("\n")}\n${used}\n${LOOK}\n(async () => {
    const root = await m${MODULES.indexOf("certificate-authority.ts")}.createRoot({ nowMs: 1e12, entropy: (count) => new Uint8Array(count) });
    ${LOOK}
    process.stdout.write(root.certificates.slice(0, 27));
  })();`;
  const run = (input: string, ...options: readonly string[]) =>
    execFileSync(process.execPath, [...options, "-"], { input, encoding: "utf8" });
  expect(run(text, "--input-type=module")).toBe("false true -----BEGIN CERTIFICATE-----");
  const bundle = await build({
    ...{ stdin: { contents: text, resolveDir: FOLDER }, bundle: true, write: false },
    ...{ platform: "node", target: "node24", format: "cjs", minifyWhitespace: true, logLevel: "silent" },
  });
  expect(run(bundle.outputFiles[0]?.text ?? "")).toBe("false true -----BEGIN CERTIFICATE-----");
});
