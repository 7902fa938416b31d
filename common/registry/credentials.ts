import { SwarmError } from "../base/error.ts";
import { parseJson } from "../model/oci-image.ts";
import type { RegistryCredentials } from "./auth.ts";

/**
 * Reads Docker's X-Registry-Auth value: base64 of JSON with `username` and `password`, or `identitytoken`. Undefined for
 * none or an empty object; throws `invalid_argument` for anything else, without a word of what it held.
 */
export function decodeRegistryAuth(value: string): RegistryCredentials | undefined {
  if (value === "") return undefined;
  const document = parseJson(Buffer.from(value, "base64"), "the service's registry login");
  if (typeof document !== "object" || document === null) throw malformed();
  const fields = new Map<string, unknown>(Object.entries(document));
  const text = (name: string): string => {
    const field = fields.get(name) ?? "";
    if (typeof field !== "string") throw malformed();
    return field;
  };
  const token = text("identitytoken");
  if (token !== "") return { kind: "identity-token", token };
  const [username, password] = [text("username"), text("password")];
  return username === "" && password === "" ? undefined : { kind: "password", username, password };
}

function malformed(): SwarmError {
  return new SwarmError("invalid_argument", "the service's registry login is malformed");
}
