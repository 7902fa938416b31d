/**
 * What an unquoted scalar is: YAML 1.2's core schema with the readings that Docker's parser keeps from 1.1, so that the same
 * file means the same: `0440` is octal and `1_000` a number; `yes`, `on`, `12:34` and dates are text.
 */
import type { ScalarValue } from "./tree.ts";

const NULL = /^(?:~|null|Null|NULL)?$/;
const TRUE = /^(?:true|True|TRUE)$/;
const FALSE = /^(?:false|False|FALSE)$/;
const INTEGER = /^[-+]?(?:0|[1-9][0-9_]*|0[0-7_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+)$/;
const FLOAT = /^[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?$/;
const SPECIAL = /^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$/;

/** The value of a plain scalar. */
export function resolvePlain(text: string): ScalarValue {
  const first = text.charCodeAt(0);
  // Most scalars begin with a letter that begins no other value.
  if (first > 64 && !/^[~nNtTfF]/.test(text)) return text;
  if (NULL.test(text)) return null;
  if (TRUE.test(text)) return true;
  if (FALSE.test(text)) return false;
  if (INTEGER.test(text)) return integerOf(text.replaceAll("_", ""));
  if (FLOAT.test(text)) return Number(text.replaceAll("_", ""));
  if (SPECIAL.test(text)) return text.endsWith("n") || text.endsWith("N") ? Number.NaN : infinity(text);
  return text;
}

function integerOf(text: string): number {
  const sign = text.startsWith("-") ? -1 : 1;
  const body = text.replace(/^[-+]/, "");
  // `|| 0`: no -0, which would print as 0 and compare as another value.
  if (/^0[0-7]+$/.test(body)) return sign * Number.parseInt(body, 8) || 0;
  return sign * Number(body) || 0;
}

function infinity(text: string): number {
  return text.startsWith("-") ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
}
