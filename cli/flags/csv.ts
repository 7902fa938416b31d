/** `key=value,key=value` lists as Docker reads them (one CSV record: fields may be quoted). Pure. */
import { bad, good, type Parsed } from "../../common/model/parsed.ts";

/** One field; `value` is undefined for a bare word such as `readonly`. */
export interface CsvField {
  readonly key: string;
  readonly value: string | undefined;
}

/** Splits one record; a field with a comma stands in double quotes. */
export function parseCsvFields(text: string): Parsed<readonly CsvField[]> {
  const fields = splitRecord(text);
  if (fields === undefined) return bad(`bad quoting in ${JSON.stringify(text)}`);
  return good(
    fields.map((field) => {
      const equals = field.indexOf("=");
      if (equals < 0) return { key: field.trim().toLowerCase(), value: undefined };
      return { key: field.slice(0, equals).trim().toLowerCase(), value: field.slice(equals + 1) };
    }),
  );
}

function splitRecord(text: string): readonly string[] | undefined {
  const fields: string[] = [];
  let rest = text;
  while (true) {
    const quotedField = /^"((?:[^"]|"")*)"(?=,|$)/.exec(rest);
    if (quotedField === null && rest.startsWith('"')) return undefined;
    const raw = quotedField?.[0] ?? /^[^,]*/.exec(rest)?.[0] ?? "";
    fields.push(quotedField ? (quotedField[1] ?? "").replaceAll('""', '"') : raw);
    rest = rest.slice(raw.length);
    if (rest === "") return fields;
    rest = rest.slice(1);
  }
}
