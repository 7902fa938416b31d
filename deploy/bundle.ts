/**
 * Makes one file of a program or of a package. The bundles are CommonJS: an ES module that imports `node:crypto` or `node:fs` runs
 * every lazy getter of it, 20 ms. In them `import.meta.url` stays the URL of the source file, so that paths relative to it are
 * right in both. The same sources give the same bytes, wherever the checkout lies.
 */
import { readFileSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { type BuildOptions, build, type Metafile, type Plugin } from "esbuild";
import type { Program } from "./programs.ts";

const ROOT = new URL("..", import.meta.url).pathname;

const OPTIONS = {
  absWorkingDir: ROOT,
  bundle: true,
  platform: "node",
  target: "node24",
  format: "cjs",
  charset: "ascii",
  // V8 keeps the text in memory; names stay, for stacks.
  minifyWhitespace: true,
  legalComments: "none",
  logLevel: "warning",
  metafile: true,
} as const satisfies BuildOptions;

/** Keeps `import.meta.url`, and the `__dirname` by which etcd3 finds its .proto files, what they are in the file itself. */
const ownPaths: Plugin = {
  name: "own-paths",
  setup({ onLoad }) {
    const urlOf = (path: string) => `checkoutUrl(${JSON.stringify(relative(ROOT, path))})`;
    onLoad({ filter: /\.ts$/ }, ({ path }) => ({
      contents: readFileSync(path, "utf8").replaceAll("import.meta.url", urlOf(path)),
      loader: "ts",
    }));
    onLoad({ filter: /\/etcd3\/lib\/connection-pool\.js$/ }, ({ path }) => ({
      contents: readFileSync(path, "utf8").replaceAll("__dirname", `new URL(".", ${urlOf(path)}).pathname`),
    }));
  },
};

/** What a bundle must know of the sources it was made of. */
export type Sources =
  /** They are beside it, and may change: it compares their times. */
  | "beside"
  /** There are none where it will run. */
  | "away";

/** Writes `NAME.js`, the program, and `NAME.cjs`, which starts it. Answers what the program was made of. */
export async function bundleProgram(
  { name, entry, external }: Program,
  directory: string,
  sources: Sources,
): Promise<Metafile> {
  const { metafile } = await build({
    ...OPTIONS,
    entryPoints: [entry],
    external: [...external],
    plugins: [ownPaths],
    outfile: join(directory, `${name}.js`),
  });
  const built = { program: name, entry, sources: sources === "beside" ? sourcesOf(metafile) : [] };
  await build({
    ...OPTIONS,
    entryPoints: ["deploy/bundle-start.ts"],
    outfile: join(directory, `${name}.cjs`),
    define: { BUILT: JSON.stringify(built) },
  });
  return metafile;
}

/** Writes a module, or a package by its name, as one file. */
export async function bundleModule(entry: string, outfile: string): Promise<Metafile> {
  const { metafile } = await build({ ...OPTIONS, entryPoints: [entry], outfile });
  return metafile;
}

/** The project's own sources, the list of its packages, and the build itself, with the times of their last change. */
function sourcesOf({ inputs }: Metafile): [path: string, mtimeMs: number][] {
  const own = Object.keys(inputs).filter((path) => !path.startsWith("node_modules/"));
  const build = ["build", "bundle", "bundle-start", "bundle-script"].map((name) => `deploy/${name}.ts`);
  return [...own, "package-lock.json", ...build].map((path) => [path, statSync(join(ROOT, path)).mtimeMs]);
}
