/** Any valid file survives parse → config → parse: what `stack config` prints means what was read, and prints as itself. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { parse, stringify } from "yaml";
import { load, printed } from "./test-files.ts";

const name = fc.stringMatching(/^[a-zA-Z][a-zA-Z0-9_-]{0,8}$/);
/** Any text, with what YAML might read as something else. */
const text = fc
  .oneof(
    fc.string({ unit: "grapheme", maxLength: 12 }),
    fc.constantFrom(
      "yes",
      "on",
      "null",
      "~",
      "1",
      "1.0",
      "0x1",
      "2001-01-01",
      "12:30",
      "a: b",
      "# a",
      "- a",
      " a ",
      "a\nb\n",
      "\n",
      "a\n\n",
      "|",
      "'\"",
      "<<",
      "=",
    ),
  )
  .map((value) => value.replaceAll("$", "$$$$").replaceAll(/[^\t\n\x20-\x7e\u00a0-\ufffd]/gu, ""));
const pairs = fc.oneof(
  fc.dictionary(name, fc.oneof(text, fc.integer({ min: -9, max: 99 }), fc.constant(null)), { maxKeys: 3 }),
  fc.uniqueArray(
    fc.tuple(name, text).map(([key, value]) => `${key}=${value}`),
    { maxLength: 3 },
  ),
);
const duration = fc
  .tuple(fc.integer({ min: 1, max: 5000 }), fc.constantFrom("ms", "s", "m"))
  .map(([count, unit]) => `${count}${unit}`);
const size = fc
  .tuple(fc.integer({ min: 5, max: 99 }), fc.constantFrom("m", "MB", "MiB", "g"))
  .map(([count, unit]) => `${count}${unit}`);
const command = fc.oneof(fc.array(text, { maxLength: 3 }), fc.constantFrom("a 'b c' d", 'sh -c "x"'));
const port = fc.integer({ min: 1, max: 65535 });

const service = fc.record(
  {
    image: fc.constantFrom("demo/web:1", "redis"),
    command,
    entrypoint: command,
    environment: pairs,
    labels: pairs,
    hostname: fc.constantFrom("h", "a.b", "{{.Node.Hostname}}"),
    init: fc.boolean(),
    read_only: fc.boolean(),
    user: fc.constantFrom("1", "1:2", "www"),
    stop_grace_period: duration,
    restart: fc.constantFrom("no", "always", "on-failure:3"),
    mem_limit: size,
    scale: fc.integer({ min: 0, max: 9 }),
    dns: fc.constantFrom("1.1.1.1", ["1.1.1.1", "::1"]),
    tmpfs: fc.constantFrom("/run", ["/run:size=1m", "/x"]),
    extra_hosts: fc.constantFrom(["a:1.2.3.4"], { b: "1.2.3.4", a: "::1" }),
    healthcheck: fc.record(
      { test: fc.oneof(fc.constant("curl x"), fc.constant(["CMD", "a", "b"])), interval: duration, retries: fc.nat(9) },
      { requiredKeys: [] },
    ),
    ports: fc
      .uniqueArray(port, { maxLength: 3 })
      .map((all) =>
        all.map((each, index) =>
          index % 2 === 0 ? `${each}:80` : { target: 80 + index, published: each, mode: "host" },
        ),
      ),
    volumes: fc.constantFrom(
      ["data:/data:ro"],
      ["./x:/y", "/z"],
      [{ type: "tmpfs", target: "/t", tmpfs: { size: 4096 } }],
    ),
    networks: fc.constantFrom(["default"], { default: null }),
    secrets: fc.constantFrom(["s"], [{ source: "s", target: "/t", mode: 256 }]),
    "x-any": fc
      .jsonValue({ maxDepth: 2, noUnicodeString: false, stringUnit: "grapheme" })
      .map((value) => JSON.parse(JSON.stringify(value).replaceAll("$", "_").replaceAll("__proto__", "p"))),
    deploy: fc.record(
      {
        replicas: fc.nat(5),
        labels: pairs,
        update_config: fc.record(
          { parallelism: fc.nat(3), delay: duration, order: fc.constantFrom("start-first", "stop-first") },
          { requiredKeys: [] },
        ),
        resources: fc.record(
          {
            limits: fc.record(
              { cpus: fc.constantFrom("0.5", 1.5), memory: size, pids: fc.nat(99) },
              { requiredKeys: [] },
            ),
          },
          { requiredKeys: [] },
        ),
        placement: fc.record(
          { constraints: fc.constantFrom([], ["node.role == worker"]), max_replicas_per_node: fc.nat(3) },
          { requiredKeys: [] },
        ),
      },
      { requiredKeys: [] },
    ),
  },
  { requiredKeys: ["image"] },
);

const stack = fc.record(
  {
    version: fc.constantFrom("3", "3.8", "3.13"),
    services: fc.dictionary(name, service, { minKeys: 1, maxKeys: 3 }),
    volumes: fc.constant({ data: null }),
    secrets: fc.constant({ s: { external: true } }),
    configs: fc.constant({ c: { content: "x\n" } }),
    "x-top": fc.array(text, { maxLength: 2 }),
  },
  { requiredKeys: ["services", "volumes", "secrets"] },
);

/** What a file loads as, in a form that compares: services are printed by name. */
function specOf(content: string): unknown {
  const loaded = load(content);
  if (!loaded.ok) return loaded.problems.map(({ path, message }) => `${path}: ${message}`).toSorted();
  const { services, ...rest } = loaded.spec;
  return { ...rest, services: services.toSorted((a, b) => (a.name < b.name ? -1 : 1)) };
}

test("parse → config → parse changes nothing", () => {
  fc.assert(
    fc.property(stack, (given) => {
      const written = stringify(given, { version: "1.2" });
      const yaml = printed(written, "yaml");
      // As Docker's, what is printed has its variables put in: a `$` in it is none, and is escaped to be read again.
      const again = yaml.replaceAll("$", "$$$$");
      expect(printed(again, "yaml")).toBe(yaml);
      expect(parse(yaml)).toEqual(JSON.parse(printed(written, "json")));
      expect(specOf(again)).toEqual(specOf(written));
    }),
    { numRuns: 100 },
  );
});
