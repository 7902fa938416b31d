/** Goal: addresses are read and printed as written, and only loopback is taken for loopback. Method: tables. */
import { expect, test } from "vitest";
import { isLoopback, parseHostPort, printHostPort } from "./host-port.ts";

test.each([
  ["127.0.0.1", true],
  ["127.1.2.3", true],
  ["::1", true],
  ["localhost", true],
  ["127.evil.example", false],
  ["0.0.0.0", false],
  ["::", false],
])("isLoopback(%s) is %s", (host, expected) => {
  expect(isLoopback(host)).toBe(expected);
});

test.each([
  ["a:1", { host: "a", port: 1 }],
  ["[::1]:65535", { host: "::1", port: 65_535 }],
])("%s is read and printed", (text, expected) => {
  expect(parseHostPort(text)).toEqual(expected);
  expect(printHostPort(expected)).toBe(text);
});

test.each(["a", "a:", ":1", "::1:1", "a:65536", "http://a:1", "a b:1"])("%j is no address", (text) => {
  expect(parseHostPort(text)).toBeUndefined();
});
