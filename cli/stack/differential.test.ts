/**
 * `stack config` prints what `docker stack config` prints. Method: a corpus (testdata/cases) whose answers by docker 28.2.2 are
 * recorded (testdata/docker); both outputs are parsed and compared value by value. Where that docker is installed it is asked
 * too, so that the recordings stay honest. Every difference is listed in test-differences.ts with its reason, and a listed one must occur.
 */
import { expect, test } from "vitest";
import { parse } from "yaml";
import { formatProblem } from "./findings.ts";
import { printStack } from "./print.ts";
import { readStack } from "./read.ts";
import { DIFFERENCES } from "./test-differences.ts";
import {
  askDocker,
  caseFiles,
  caseNames,
  DOCKER_VERSION,
  dockerVersion,
  ENVIRONMENT,
  recordable,
  recorded,
} from "./test-docker.ts";

const docker = dockerVersion();

/** Both forms of our answer. */
function ours(name: string): { readonly yaml: unknown; readonly json: unknown } {
  const read = readStack({ files: caseFiles(name), environment: ENVIRONMENT });
  if (!read.ok) throw new Error(read.problems.map(formatProblem).join("\n"));
  return { yaml: parse(printStack(read.file, "yaml")), json: JSON.parse(printStack(read.file, "json")) };
}

type Difference = readonly [path: string, docker: unknown, here: unknown];

/** Where two values differ, deepest first places only. */
function compare(theirs: unknown, here: unknown, path = ""): readonly Difference[] {
  const bothObjects = isObject(theirs) && isObject(here);
  if (bothObjects && Array.isArray(theirs) === Array.isArray(here)) {
    const keys = new Set([...Object.keys(theirs), ...Object.keys(here)]);
    return [...keys].flatMap((key) => compare(theirs[key], here[key], path === "" ? key : `${path}.${key}`));
  }
  return Object.is(theirs, here) ? [] : [[path, theirs, here]];
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

test("the corpus is large, and no difference is of a case that it lacks", () => {
  expect(caseNames().length).toBeGreaterThanOrEqual(40);
  expect(caseNames()).toEqual(expect.arrayContaining(Object.keys(DIFFERENCES)));
});

test.each(caseNames())("%s", (name) => {
  const { yaml, json } = ours(name);
  expect(yaml).toEqual(json);
  const found = compare(parse(recorded(name)) ?? {}, yaml);
  expect(found).toEqual(DIFFERENCES[name]?.values ?? []);
});

test(`docker, ${docker === DOCKER_VERSION ? `asked again (${docker})` : `not asked again: ${docker ?? "none"} is installed, not ${DOCKER_VERSION}`}`, () => {
  const names = docker === DOCKER_VERSION ? caseNames() : [];
  const changed = names.filter((name) => recordable(askDocker(name)) !== recordable(recorded(name)));
  expect(changed).toEqual([]);
});
