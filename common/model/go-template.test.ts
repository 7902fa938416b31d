import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseTemplate } from "./go-template.ts";

const data = {
  Name: "web",
  Count: 3,
  On: true,
  List: ["a", "b"],
  Inner: { Deep: "x", Labels: Object.assign(Object.create(null), { "a.b": "1", k: "v" }) },
};
const functions = {
  upper: (text: unknown) => String(text).toUpperCase(),
  json: (value: unknown) => JSON.stringify(value),
};

function executed(text: string): string {
  const template = parseTemplate(text, functions);
  if (!template.ok) return template.problem;
  const result = template.value.execute(data);
  return result.ok ? result.value : result.problem;
}

describe("Go's templates", () => {
  test.each([
    ["plain", "plain"],
    ["{{.Name}}", "web"],
    ["{{ .Inner.Deep }}-{{.Count}}", "x-3"],
    ["{{.Name | upper}}", "WEB"],
    ["{{upper .Name}}", "WEB"],
    ["{{json .List}}", '["a","b"]'],
    ["{{.List}}", "[a b]"],
    ["{{.Inner.Labels}}", "map[a.b:1 k:v]"],
    ['{{index .Inner.Labels "a.b"}}', "1"],
    ["{{.Inner.Labels.nope}}", "<no value>"],
    ["{{index .List 1}}", "b"],
    ["{{range .List}}<{{.}}>{{end}}", "<a><b>"],
    ["{{range $i, $e := .List}}{{$i}}={{$e}} {{$.Name}};{{end}}", "0=a web;1=b web;"],
    ["{{range .Inner.Labels}}{{.}}{{end}}", "1v"],
    ["{{if eq .Count 3}}yes{{else}}no{{end}}", "yes"],
    ["{{if not .On}}a{{else if .List}}b{{else}}c{{end}}", "b"],
    ["{{with .Inner}}{{.Deep}}{{end}}", "x"],
    ["{{$x := .Name}}{{$x}}", "web"],
    ["{{(index .List 0) | upper}}", "A"],
    ["a {{- .Name -}} b", "awebb"],
    ["{{/* note */}}x", "x"],
    ["{{len .List}} {{and .On .Name}} {{or .Name 1}}", "2 web web"],
    ['{{printf "%s:%03d|%-5s|%q" .Name .Count .Name .Name}}', 'web:003|web  |"web"'],
    ['{{"}}"}}', "}}"],
    ["{{`raw`}}", "raw"],
    ["{{println .Name}}", "web\n"],
  ])("%s", (text, expected) => {
    expect(executed(text)).toBe(expected);
  });

  test.each([
    ["{{.Nope}}", "template: can't evaluate field Nope (fields: Name, Count, On, List, Inner)"],
    ["{{.Name.x}}", "template: can't evaluate field x in string"],
    ["{{.constructor}}", "template: can't evaluate field constructor (fields: Name, Count, On, List, Inner)"],
    ["{{.__proto__}}", "template: can't evaluate field __proto__ (fields: Name, Count, On, List, Inner)"],
    ["{{.Name", "template: unclosed action"],
    ["{{nope .Name}}", 'template: function "nope" not defined'],
    ["{{toString}}", 'template: function "toString" not defined'],
    ["{{range .List}}", "template: {{range}} without {{end}}"],
    ["{{end}}", "template: unexpected {{end}}"],
    ["{{}}", "template: missing value for command"],
    ["{{(.Name}}", "template: unclosed left paren"],
    ["{{$x}}", 'template: undefined variable "$x"'],
    ["{{index .List 9}}", "template: index out of range: 9"],
    ["{{if .On}}".repeat(60) + "{{end}}".repeat(60), "template: nested deeper than 50"],
  ])("%s is refused", (text, problem) => {
    expect(executed(text)).toBe(problem);
  });

  test("whatever the text, it answers", () => {
    const piece = fc.constantFrom(
      "{{",
      "}}",
      ".",
      "Name",
      "range",
      "end",
      "if",
      "(",
      ")",
      "|",
      "$x",
      ":=",
      '"',
      " ",
      "-",
      "index",
      "0",
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 20 }), (pieces) => {
        expect(typeof executed(pieces.join(""))).toBe("string");
      }),
      { numRuns: 2000 },
    );
  });
});
