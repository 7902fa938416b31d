import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { ServiceViewSchema } from "../../proto/gen/swarm/v1/control_pb.js";
import { NodeSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { ServiceSpecSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { renderList, renderObjects } from "./format.ts";
import { nodeJson } from "./node-json.ts";
import { serviceJson } from "./service-json.ts";

const listing = { columns: { ID: "ID", Name: "NAME", Ports: "PORTS" }, more: { Extra: "EXTRA" }, key: "ID" };
const rows = [
  { ID: "abc", Name: "web", Ports: "*:80->80/tcp", Extra: "x" },
  { ID: "def", Name: "a-much-longer-name", Ports: "", Extra: "y" },
];

function rendered(format?: string, quiet = false): string {
  try {
    return renderList(listing, rows, { format, quiet });
  } catch (reason) {
    return reason instanceof Error ? reason.message : "";
  }
}

describe("lists", () => {
  test("the default table has Docker's spacing", () => {
    expect(rendered()).toMatchInlineSnapshot(`
      "ID        NAME                 PORTS
      abc       web                  *:80->80/tcp
      def       a-much-longer-name   
      "
    `);
  });

  test.each([
    ["{{.Name}}:{{.ID}}", "web:abc\na-much-longer-name:def\n"],
    ["{{json .Name}} {{upper .ID}} {{.Extra}}", '"web" ABC x\n"a-much-longer-name" DEF y\n'],
    ["table {{.Name}}\\t{{.Extra}}", "NAME                 EXTRA\nweb                  x\na-much-longer-name   y\n"],
    ['{{pad .ID 1 2}}|{{join (split .Name "-") "+"}}', " abc  |web\n def  |a+much+longer+name\n"],
    ["{{.Nope}}", "--format: template: can't evaluate field Nope (fields: ID, Name, Ports, Extra)"],
    ["{{.Name", "--format: template: unclosed action"],
  ])("%s", (format, expected) => {
    expect(rendered(format)).toBe(expected);
  });

  test("quiet and json", () => {
    expect(rendered(undefined, true)).toBe("abc\ndef\n");
    expect(rendered("json").split("\n")[0]).toBe('{"ID":"abc","Name":"web","Ports":"*:80->80/tcp","Extra":"x"}');
  });

  test("a hostile name cannot drive the terminal", () => {
    const hostile = [{ ID: "a", Name: "\u001b]0;x\u0007", Ports: "", Extra: "" }];
    expect(renderList(listing, hostile, { format: "{{.Name}}" })).toBe("\\u001b]0;x\\u0007\n");
    expect(renderList(listing, hostile, {})).not.toContain("\u001b");
  });
});

test("objects", () => {
  expect(renderObjects([{ A: 1 }], undefined)).toBe('[\n    {\n        "A": 1\n    }\n]\n');
  expect(renderObjects([{ A: { B: [1, 2] } }], "{{json .A}} {{range .A.B}}<{{.}}>{{end}}")).toBe(
    '{"B":[1,2]} <1><2>\n',
  );
});

test("a template sees what JSON leaves out: flags that are off, and what is empty", () => {
  const service = serviceJson(
    create(ServiceViewSchema, { spec: { name: "web", task: { container: { image: "web:1" } } } }),
  );
  const template = (field: string) => renderObjects([service], `{{with .Spec.TaskTemplate}}{{${field}}}{{end}}`);
  expect(template(".ContainerSpec.TTY")).toBe("false\n");
  expect(template(".ContainerSpec.User")).toBe("\n");
  expect(template("len .ContainerSpec.Mounts")).toBe("0\n");
  expect(template(".Resources.Limits.NanoCPUs")).toBe("0\n");
  expect(template("json .ContainerSpec")).toBe('{"Image":"web:1","StopGracePeriod":10000000000}\n');
  expect(() => template(".ContainerSpec.Nope")).toThrow("can't evaluate field Nope");
  const whole = (text: string) => renderObjects([service], text);
  expect(whole("{{with .UpdateStatus}}{{.State}}{{else}}none{{end}}")).toBe("none\n");
  expect(whole("{{if .PreviousSpec}}{{.PreviousSpec.Name}}{{end}}{{if .JobStatus}}job{{end}}")).toBe("\n");
  expect(JSON.stringify(service)).not.toMatch(/UpdateStatus|PreviousSpec|JobStatus/);
  expect(renderObjects([nodeJson(create(NodeSchema, {}))], "{{if .ManagerStatus}}manager{{end}}")).toBe("\n");
});

test("a spec is shown with what it leaves to the defaults, as Docker's API does; a job's without updates", () => {
  const shown = (spec: MessageInitShape<typeof ServiceSpecSchema>) =>
    renderObjects(
      [serviceJson(create(ServiceViewSchema, { spec }))],
      "{{with .Spec}}{{json .UpdateConfig}} {{json .RollbackConfig}} {{json .TaskTemplate.RestartPolicy}}{{end}}",
    ).trim();
  const rolling =
    '{"Parallelism":1,"Monitor":5000000000,"FailureAction":"pause","MaxFailureRatio":0,"Order":"stop-first"}';
  expect(shown({ task: {} })).toBe(`${rolling} ${rolling} {"Condition":"any","Delay":5000000000,"MaxAttempts":0}`);
  expect(shown({ update: { parallelism: 0n, maxFailureRatio: 0.5 } })).toContain(
    '{"Parallelism":0,"Monitor":5000000000',
  );
  expect(shown({ task: {}, mode: { mode: { case: "globalJob", value: {} } } })).toMatch(/^null null /);
});
