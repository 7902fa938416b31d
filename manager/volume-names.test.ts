import { expect, test } from "vitest";
import { mayBecome } from "./volume-names.ts";

test.each([
  ["data", "data", true],
  ["data", "data-1", false],
  ["data-{{.Task.Slot}}", "data-1", true],
  ["data-{{ .Task.Slot }}", "data-", true],
  ["data-{{.Task.Slot}}", "date-1", false],
  ["{{.Service.Name}}-data", "web-data", true],
  ["{{.Service.Name}}-data", "web-date", false],
  ["a{{.Task.Slot}}b{{.Task.Slot}}c", "a1b1c", true],
  ["a{{.Task.Slot}}b{{.Task.Slot}}c", "a1c", false],
  ["aa{{.Task.Slot}}aa", "aaa", false],
  // What decides or computes may become anything.
  ['{{if eq .Task.Slot "1"}}x{{end}}', "whatever", true],
  ['{{index .Service.Labels "volume"}}', "whatever", true],
])("%s may become %s: %s", (source, name, expected) => {
  expect(mayBecome(source, name)).toBe(expected);
});
