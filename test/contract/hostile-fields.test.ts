/**
 * Goal: no field of a request takes a value that means nothing (hardening cases 75 and 83): ids that are none, times below zero or
 * beyond all time, numbers that are none or too large; each is refused by the name of its field. Method: every such field of every
 * request that the API has, found by reflection, so that one that is added is tried, too.
 */
import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openGrpcTransport } from "../../common/rpc/grpc-transport.ts";
import { type Client, createClient, type Transport } from "../../common/rpc/service.ts";
import { Control } from "../../proto/gen/swarm/v1/control_pb.js";
import { type ControlPlane, startControlPlane } from "../control-plane.ts";

type Request = Readonly<Record<string, unknown>>;

let plane: ControlPlane;
let transport: Transport;

beforeAll(async () => {
  plane = await startControlPlane({ nodes: 1 });
  transport = openGrpcTransport({ address: plane.host.replace(/^unix:\/\//, "unix:") });
});
afterAll(async () => {
  await transport[Symbol.asyncDispose]();
  await plane[Symbol.asyncDispose]();
});

/** "code: message" of a refusal; undefined for a call that was taken. */
async function refusal(method: string, request: Request): Promise<string | undefined> {
  const client = createClient(Control, transport) as unknown as Client<typeof Control> &
    Readonly<Record<string, (request: Request) => Promise<unknown>>>;
  const answer: unknown = client[method]?.(request);
  try {
    if (typeof answer === "object" && answer !== null && Symbol.asyncIterator in answer) {
      for await (const _ of answer as AsyncIterable<unknown>) break;
    } else await answer;
    return undefined;
  } catch (reason) {
    const { code, message } = reason as { readonly code: string; readonly message: string };
    return `${code}: ${message}`;
  }
}

/** A way to a field within a message. */
type Path = readonly DescField[];

/** The paths to all fields of `message` that are wanted, each message within another only once. */
function pathsOf(message: DescMessage, isWanted: (field: DescField) => boolean, within: Path = []): Path[] {
  return message.fields.flatMap((field) => {
    const path = [...within, field];
    if (isWanted(field)) return [path];
    const inner =
      field.fieldKind === "list" ? (field.listKind === "message" ? field.message : undefined) : field.message;
    if (field.fieldKind === "map" || inner === undefined || within.some((each) => each.message === inner)) return [];
    return pathsOf(inner, isWanted, path);
  });
}

/** A message with `value` at the end of `path`, upon what `base` has. */
function withField(base: Request, path: Path, value: unknown): Request {
  const [field, ...rest] = path;
  if (field === undefined) return base;
  const place = field.oneof ? undefined : base[field.localName];
  const before = (Array.isArray(place) ? place[0] : place) ?? {};
  const inner = rest.length === 0 ? value : withField(before as Request, rest, value);
  const whole = field.fieldKind === "list" ? [inner] : inner;
  if (field.oneof) return { ...base, [field.oneof.localName]: { case: field.localName, value: whole } };
  return { ...base, [field.localName]: whole };
}

const methods = Control.methods.filter(({ methodKind }) => methodKind === "unary" || methodKind === "server_streaming");

const NAMED_BY_NAME = /^(removeStack|rollbackStack|listStackRevisions)$/;

describe("75 what names an object", () => {
  const rows = methods.flatMap(({ localName: method, input }) =>
    input.fields
      .filter(({ name }) => /(^|_)id$|^references?$/.test(name) || (name === "name" && NAMED_BY_NAME.test(method)))
      .map((field) => [method, field.name, field] as const),
  );
  test.each(rows)("%s: %s", async (method, _, field) => {
    expect(rows.length).toBeGreaterThan(20);
    for (const id of ["", "../x", "x".repeat(65_536), "a\0b", "a b"]) {
      if (id === "" && field.fieldKind === "list") continue;
      const answer = await refusal(method, withField({}, [field], id));
      expect(answer, id.slice(0, 20)).toMatch(/^invalid_argument: ("|name: |[a-z]+_id: |selector|reference: )/);
      expect(answer?.length).toBeLessThan(300);
    }
  });
});

const SPEC = { name: "api", task: { container: { image: "demo/web:1" } } };

/** Requests of which only what is put into them is wrong. */
const BASES: Readonly<Record<string, Request>> = {
  createService: { spec: SPEC },
  planStack: { stack: { spec: { name: "shop", services: [{ ...SPEC, name: "shop_api" }] } } },
  createUser: { name: "ci", role: 1 },
  updateCluster: { spec: { heartbeatPeriod: { seconds: 1n }, taskHistoryLimit: 5, addressPool: "10.224.0.0/12" } },
};

describe("83 times and ratios", () => {
  const isDuration = (field: DescField) => field.message?.typeName === "google.protobuf.Duration";
  const isRatio = ({ scalar }: DescField) => scalar === ScalarType.DOUBLE || scalar === ScalarType.FLOAT;
  const durations = [{ seconds: -1n }, { nanos: -1 }, { seconds: 2n ** 62n }, { seconds: -(2n ** 63n) }];
  const ratios = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -1, 1e300];
  // What an update of a service or a stack takes is checked as what makes one is.
  const rows = methods
    .filter(({ localName }) => !/^(updateService|applyStack)$/.test(localName))
    .flatMap(({ localName: method, input }) =>
      pathsOf(input, (field) => isDuration(field) || isRatio(field)).map(
        (path) => [method, path.map(({ name }) => name).join("."), path] as const,
      ),
    );
  test.each(rows)("%s: %s", async (method, _, path) => {
    expect(rows.length).toBeGreaterThan(25);
    const field = path.at(-1);
    if (!field) throw new Error("no field");
    for (const value of isDuration(field) ? durations : ratios) {
      const request = withField(BASES[method] ?? {}, path, value);
      expect(await refusalOf(method, request), String(Object.entries(value))).toContain(`${field.name}: `);
    }
  });
});

/** The words of an `invalid_argument`, by the call or, of a plan, within it. */
async function refusalOf(method: string, request: Request): Promise<string> {
  if (method !== "planStack") {
    const answer = (await refusal(method, request)) ?? "taken";
    expect(answer).toMatch(/^invalid_argument: /);
    return answer;
  }
  return (await refusal("applyStack", request)) ?? "taken";
}

describe("83 integers that are as large or as small as can be", () => {
  const extremes: Readonly<Record<number, readonly (number | bigint)[]>> = {
    [ScalarType.INT32]: [-(2 ** 31), 2 ** 31 - 1],
    [ScalarType.UINT32]: [2 ** 32 - 1],
    [ScalarType.INT64]: [-(2n ** 63n), 2n ** 63n - 1n],
    [ScalarType.UINT64]: [2n ** 64n - 1n],
  };
  const rows = methods.flatMap(({ localName: method, input }) =>
    pathsOf(input, ({ scalar }) => scalar !== undefined && scalar in extremes).map(
      (path) => [method, path.map(({ name }) => name).join("."), path] as const,
    ),
  );
  test.each(rows)("%s: %s", async (method, _, path) => {
    expect(rows.length).toBeGreaterThan(100);
    for (const value of extremes[path.at(-1)?.scalar ?? 0] ?? []) {
      const answer = await refusal(method, withField(BASES[method] ?? {}, path, value));
      // Taken as "without end", or refused; no bug.
      expect(answer ?? "").not.toMatch(/^(internal|unknown): /);
    }
    expect(await refusal("getInfo", {})).toBeUndefined();
  });
});
