/**
 * DNS messages (RFC 1035 §4): questions are read by dns-packet, answers of our own are written here, since they are of
 * three kinds only and are what the resolver's time goes into. Pure.
 */
import { decode, type Packet } from "dns-packet";

/** Response codes (RFC 1035 §4.1.1). */
export const RCODE = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, NOTIMP: 4, REFUSED: 5 } as const;
export type Rcode = (typeof RCODE)[keyof typeof RCODE];

/** What every client takes over UDP (RFC 1035 §4.2.1), and what we give to those that say they take more (DNS flag day). */
const UDP_BYTES = 512;
const UDP_BYTES_MAX = 1232;
/** Longer ones are no questions: one name and an OPT record. */
const QUERY_BYTES_MAX = 4096;

const HEADER_BYTES = 12;
const FLAG = { RESPONSE: 0x8000, AUTHORITATIVE: 0x0400, TRUNCATED: 0x0200, WANTED: 0x0100, AVAILABLE: 0x0080 } as const;
const OPCODE_MASK = 0x7800;
const RCODE_MASK = 0x0f;
const TYPE = { A: 1, PTR: 12, AAAA: 28, OPT: 41 } as const;
const CLASS_IN = 1;
/** A pointer to the question's name, which stands right behind the header. */
const NAME_OF_QUESTION = 0xc00c;
/** The largest label and name (RFC 1035 §2.3.4). */
const LABEL_BYTES_MAX = 63;
const NAME_BYTES_MAX = 255;

/** One question. */
export interface Query {
  readonly id: number;
  /** In lower case, without the dot at its end. */
  readonly name: string;
  /** "A", "AAAA", "PTR", …; "UNKNOWN_n" for those without a name. */
  readonly type: string;
  /** Whether it is about the Internet: nothing else is known here. */
  readonly internet: boolean;
  /** The question's bytes as they came: an answer repeats them. */
  readonly question: Uint8Array;
  /** Whether it came with EDNS (RFC 6891): then so does its answer. */
  readonly edns: boolean;
  /** What the client takes over UDP. */
  readonly udpBytes: number;
  readonly recursion: boolean;
}

/** What came: a question, one that cannot be answered but for this code, or nothing that deserves an answer. */
export type Received =
  | { readonly kind: "query"; readonly query: Query }
  | { readonly kind: "bad"; readonly answer: Uint8Array }
  | { readonly kind: "noise" };

/** Reads what a client sent. It never throws, whatever that is. */
export function receive(bytes: Uint8Array): Received {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  // Responses are not answered, or two servers would keep each other busy.
  if (buffer.length < HEADER_BYTES || (buffer.readUInt16BE(2) & FLAG.RESPONSE) !== 0) return { kind: "noise" };
  if ((buffer.readUInt16BE(2) & OPCODE_MASK) !== 0) return { kind: "bad", answer: bare(buffer, RCODE.NOTIMP) };
  const end = questionEnd(buffer);
  if (end === undefined || buffer.length > QUERY_BYTES_MAX || buffer.readUInt16BE(4) !== 1) {
    return { kind: "bad", answer: bare(buffer, RCODE.FORMERR) };
  }
  let packet: Packet;
  try {
    packet = decode(buffer);
  } catch {
    return { kind: "bad", answer: bare(buffer, RCODE.FORMERR) };
  }
  const [asked] = packet.questions ?? [];
  if (asked === undefined) return { kind: "bad", answer: bare(buffer, RCODE.FORMERR) };
  const opt = (packet.additionals ?? []).find((record) => record.type === "OPT");
  const told = opt !== undefined && "udpPayloadSize" in opt ? opt.udpPayloadSize : 0;
  return {
    kind: "query",
    query: {
      id: buffer.readUInt16BE(0),
      name: asked.name === "." ? "" : asked.name.toLowerCase(),
      type: asked.type,
      internet: buffer.readUInt16BE(end - 2) === CLASS_IN,
      question: buffer.subarray(HEADER_BYTES, end),
      edns: opt !== undefined,
      udpBytes: Math.min(UDP_BYTES_MAX, Math.max(UDP_BYTES, told)),
      recursion: (buffer.readUInt16BE(2) & FLAG.WANTED) !== 0,
    },
  };
}

/** One record of an answer: the data of an A, AAAA or PTR record. */
export interface AnswerRecord {
  readonly type: "A" | "AAAA" | "PTR";
  /** In seconds. */
  readonly ttl: number;
  readonly data: Uint8Array;
}

/**
 * An answer of our own. With more than `limit` bytes it is cut to what fits and says so, which makes the client ask again
 * over TCP.
 */
export function encodeAnswer(
  query: Query,
  { rcode, records }: { readonly rcode: Rcode; readonly records: readonly AnswerRecord[] },
  limit: number,
): Uint8Array {
  const room = limit - HEADER_BYTES - query.question.length - (query.edns ? OPT_BYTES : 0);
  const sizes = records.map(({ data }) => RECORD_BYTES + data.length);
  let count = 0;
  let size = 0;
  for (; count < records.length && size + (sizes[count] ?? 0) <= room; count++) size += sizes[count] ?? 0;
  const truncated = count < records.length ? FLAG.TRUNCATED : 0;
  const answer = Buffer.alloc(HEADER_BYTES + query.question.length + size + (query.edns ? OPT_BYTES : 0));
  const recursion = query.recursion ? FLAG.WANTED : 0;
  answer.writeUInt16BE(query.id, 0);
  answer.writeUInt16BE(FLAG.RESPONSE | FLAG.AUTHORITATIVE | FLAG.AVAILABLE | recursion | truncated | rcode, 2);
  answer.writeUInt16BE(1, 4);
  answer.writeUInt16BE(count, 6);
  answer.writeUInt16BE(query.edns ? 1 : 0, 10);
  answer.set(query.question, HEADER_BYTES);
  let offset = HEADER_BYTES + query.question.length;
  for (const { type, ttl, data } of records.slice(0, count)) {
    answer.writeUInt16BE(NAME_OF_QUESTION, offset);
    answer.writeUInt16BE(TYPE[type], offset + 2);
    answer.writeUInt16BE(CLASS_IN, offset + 4);
    answer.writeUInt32BE(ttl, offset + 6);
    answer.writeUInt16BE(data.length, offset + 10);
    answer.set(data, offset + RECORD_BYTES);
    offset += RECORD_BYTES + data.length;
  }
  if (query.edns) {
    // The root's name, OPT, and in place of a class what we take over UDP.
    answer.writeUInt16BE(TYPE.OPT, offset + 1);
    answer.writeUInt16BE(UDP_BYTES_MAX, offset + 3);
  }
  return answer;
}

const RECORD_BYTES = 12;
const OPT_BYTES = 11;

/** A name as a PTR record has it. Labels that are too long are cut: nobody could ask for them. */
export function encodeName(name: string): Uint8Array {
  const parts: Buffer[] = [];
  let size = 1;
  for (const label of name.split(".")) {
    const bytes = Buffer.from(label).subarray(0, LABEL_BYTES_MAX);
    if (bytes.length === 0 || size + bytes.length + 1 > NAME_BYTES_MAX) continue;
    parts.push(Buffer.of(bytes.length), bytes);
    size += bytes.length + 1;
  }
  return Buffer.concat([...parts, Buffer.of(0)]);
}

/** Whether `answer` is a response to `query`, which was sent with `id`. */
export function isAnswerTo(answer: Uint8Array, query: Query, id: number): boolean {
  const buffer = Buffer.from(answer.buffer, answer.byteOffset, answer.byteLength);
  if (buffer.length < HEADER_BYTES + query.question.length) return false;
  if (buffer.readUInt16BE(0) !== id || (buffer.readUInt16BE(2) & FLAG.RESPONSE) === 0) return false;
  const question = buffer.subarray(HEADER_BYTES, HEADER_BYTES + query.question.length);
  // Some servers do not keep the letters' case.
  return question.toString("latin1").toLowerCase() === Buffer.from(query.question).toString("latin1").toLowerCase();
}

/** Whether a server says that it cannot answer, or will not: another may. An answer of NXDOMAIN is one. */
export function isRefusal(answer: Uint8Array): boolean {
  const rcode = (answer[3] ?? 0) & RCODE_MASK;
  return rcode === RCODE.SERVFAIL || rcode === RCODE.NOTIMP || rcode === RCODE.REFUSED;
}

/** The message with another id. */
export function withId(message: Uint8Array, id: number): Uint8Array {
  const copy = Buffer.from(message);
  copy.writeUInt16BE(id, 0);
  return copy;
}

/** Where the one question ends; undefined when it is cut off, or points elsewhere, which no question needs to. */
function questionEnd(buffer: Buffer): number | undefined {
  let offset = HEADER_BYTES;
  for (;;) {
    const length = buffer[offset];
    if (length === undefined || length > LABEL_BYTES_MAX) return undefined;
    offset += length + 1;
    if (length === 0) break;
    if (offset - HEADER_BYTES > NAME_BYTES_MAX) return undefined;
  }
  return offset + 4 <= buffer.length ? offset + 4 : undefined;
}

/** An answer to what cannot be read: the header alone. */
function bare(buffer: Buffer, rcode: Rcode): Uint8Array {
  const answer = Buffer.alloc(HEADER_BYTES);
  answer.writeUInt16BE(buffer.readUInt16BE(0), 0);
  answer.writeUInt16BE(FLAG.RESPONSE | (buffer.readUInt16BE(2) & (OPCODE_MASK | FLAG.WANTED)) | rcode, 2);
  return answer;
}
