/**
 * The wire form of netlink: messages and attributes to bytes and back, no more (`rtnetlink.ts` and `conntrack.ts` know
 * what they mean). Layout as in linux/netlink.h; integers in the host's order, which is little-endian on every
 * machine that Node's own builds run containers on (x64, arm64).
 */
import { getSystemErrorName } from "node:util";
import { type ErrorCode, SwarmError } from "../../common/base/error.ts";

/** Netlink's protocols (linux/netlink.h). */
export const NETLINK = { ROUTE: 0, NETFILTER: 12, GENERIC: 16 } as const;

/**
 * Sends netlink messages in the host's network namespace; the shim's runner does it for the agent. One message goes
 * out as it is; what came back is all of the answer, one datagram after another, up to the acknowledgement, a refusal
 * or the end of a dump. It rejects only when the socket itself fails.
 */
export interface Netlink {
  netlink(protocol: number, message: Uint8Array, signal: AbortSignal): Promise<Uint8Array>;
}

/** An attribute to send: bytes, or more attributes nested in it. */
export interface Attribute {
  readonly type: number;
  readonly value: Uint8Array | readonly Attribute[];
}

/** One received message: its type and what follows the nlmsghdr. */
export interface NetlinkMessage {
  readonly type: number;
  readonly payload: Uint8Array;
}

/** nlmsg_flags (linux/netlink.h). */
export const NLM_F = { REQUEST: 1, MULTI: 2, ACK: 4, DUMP: 0x300, REPLACE: 0x100, EXCL: 0x200, CREATE: 0x400 } as const;

const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const ERRNO_CODES: Readonly<Record<string, ErrorCode>> = {
  EPERM: "permission_denied",
  ENODEV: "not_found",
  ENOENT: "not_found",
  EEXIST: "already_exists",
  ENOMEM: "resource_exhausted",
  EMSGSIZE: "resource_exhausted",
};
const HEADER_LENGTH = 16;
const NLA_F_NESTED = 0x8000;
const NLA_TYPE_MASK = 0x3fff;

export function u8(type: number, value: number): Attribute {
  return { type, value: Uint8Array.of(value) };
}

export function u16(type: number, value: number): Attribute {
  return { type, value: Uint8Array.of(value & 255, value >>> 8) };
}

export function u32(type: number, value: number): Attribute {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return { type, value: bytes };
}

/** A NUL-terminated string. */
export function text(type: number, value: string): Attribute {
  return { type, value: new TextEncoder().encode(`${value}\0`) };
}

export function bytes(type: number, value: Uint8Array): Attribute {
  return { type, value };
}

/** Attributes nested in one; NLA_F_NESTED is set, as the kernel's strict checks want. */
export function nested(type: number, value: readonly Attribute[]): Attribute {
  return { type: type | NLA_F_NESTED, value };
}

/** A nested attribute whose content is encoded already, since it starts with a header of its own. */
export function nestedBytes(type: number, value: Uint8Array): Attribute {
  return { type: type | NLA_F_NESTED, value };
}

/** A message: nlmsghdr, the family's fixed header, attributes. */
export function encodeMessage(message: {
  readonly type: number;
  readonly flags: number;
  readonly header: Uint8Array;
  readonly attributes?: readonly Attribute[];
}): Uint8Array {
  const parts = [align(message.header), ...(message.attributes ?? []).map(encodeAttribute)];
  const length = parts.reduce((sum, part) => sum + part.length, HEADER_LENGTH);
  const encoded = new Uint8Array(length);
  const view = new DataView(encoded.buffer);
  view.setUint32(0, length, true);
  view.setUint16(4, message.type, true);
  view.setUint16(6, message.flags, true);
  // One request at a time is under way on a socket, so the sequence number tells nothing: it is always 1.
  view.setUint32(8, 1, true);
  let offset = HEADER_LENGTH;
  for (const part of parts) {
    encoded.set(part, offset);
    offset += part.length;
  }
  return encoded;
}

/** An attribute, padded to four bytes; also the value of one that nests a header (VETH_INFO_PEER) before its own. */
export function encodeAttribute(attribute: Attribute): Uint8Array {
  const value =
    attribute.value instanceof Uint8Array ? attribute.value : concatenate(attribute.value.map(encodeAttribute));
  const encoded = new Uint8Array(4 + ((value.length + 3) & ~3));
  const view = new DataView(encoded.buffer);
  view.setUint16(0, 4 + value.length, true);
  view.setUint16(2, attribute.type, true);
  encoded.set(value, 4);
  return encoded;
}

/** The parts one after another. */
export function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}

/** The attributes of a region by type (flags masked off). Throws `data_loss` on lengths that do not fit. */
export function decodeAttributes(region: Uint8Array): ReadonlyMap<number, Uint8Array> {
  return new Map(listAttributes(region));
}

/** The same in order: an array's elements may all have one type. */
export function listAttributes(region: Uint8Array): readonly (readonly [number, Uint8Array])[] {
  const attributes: (readonly [number, Uint8Array])[] = [];
  const view = new DataView(region.buffer, region.byteOffset, region.byteLength);
  for (let offset = 0; offset + 4 <= region.length; ) {
    const length = view.getUint16(offset, true);
    if (length < 4 || offset + length > region.length) throw malformed("attribute", length);
    attributes.push([view.getUint16(offset + 2, true) & NLA_TYPE_MASK, region.subarray(offset + 4, offset + length)]);
    offset += (length + 3) & ~3;
  }
  return attributes;
}

/** What the kernel answered: its messages, and the name of the errno when it refused or a dump broke off. */
export interface NetlinkAnswer {
  readonly messages: readonly NetlinkMessage[];
  readonly errno?: string;
}

/** Reads an answer. Throws `data_loss` on lengths that do not fit. */
export function decodeAnswer(answer: Uint8Array): NetlinkAnswer {
  const messages: NetlinkMessage[] = [];
  const view = new DataView(answer.buffer, answer.byteOffset, answer.byteLength);
  for (let offset = 0; offset + HEADER_LENGTH <= answer.length; ) {
    const length = view.getUint32(offset, true);
    if (length < HEADER_LENGTH || offset + length > answer.length) throw malformed("message", length);
    const type = view.getUint16(offset + 4, true);
    const payload = answer.subarray(offset + HEADER_LENGTH, offset + length);
    if (type !== NLMSG_ERROR && type !== NLMSG_DONE) {
      messages.push({ type, payload });
    } else if (payload.length >= 4) {
      const errno = view.getInt32(offset + HEADER_LENGTH, true);
      if (errno < 0) return { messages, errno: getSystemErrorName(errno) };
    }
    offset += (length + 3) & ~3;
  }
  return { messages };
}

/** One request: what is sent and what to call it in an error. */
export interface NetlinkRequest {
  readonly protocol: number;
  readonly message: Uint8Array;
  /** "create bridge swarm0". */
  readonly label: string;
  /** Errnos that are as good as success, by name. */
  readonly tolerated?: readonly string[];
}

/** Sends one request and reads its answer; a tolerated refusal is an empty one. Throws a SwarmError `label: ERRNO`. */
export async function exchange(
  netlink: Netlink,
  request: NetlinkRequest,
  signal: AbortSignal,
): Promise<readonly NetlinkMessage[]> {
  const answer = decodeAnswer(await netlink.netlink(request.protocol, request.message, signal));
  if (answer.errno === undefined) return answer.messages;
  if (request.tolerated?.includes(answer.errno)) return [];
  throw new SwarmError(ERRNO_CODES[answer.errno] ?? "failed_precondition", `${request.label}: ${answer.errno}`);
}

/** As much as goes out at once: well below the least send buffer that Linux gives a socket (net.core.wmem_default). */
const BATCH_BYTES = 64 * 1024;

/**
 * Sends many requests of one protocol that ask for no more than to be acknowledged, in as few turns as there can be: the
 * kernel carries out all messages of a datagram, and only the last one's acknowledgement is waited for. Where one of
 * them is refused, that datagram's are sent again one by one, so they must be such that may be repeated. Throws as
 * `exchange` does, at the first refusal that is not tolerated.
 */
export async function exchangeAll(
  netlink: Netlink,
  requests: readonly NetlinkRequest[],
  signal: AbortSignal,
): Promise<void> {
  for (let begin = 0; begin < requests.length; ) {
    let end = begin;
    for (let size = 0; end < requests.length; end++) {
      size += requests[end]?.message.length ?? 0;
      if (size > BATCH_BYTES && end > begin) break;
    }
    const batch = requests.slice(begin, end);
    begin = end;
    const last = batch.length - 1;
    const together = batch.map(({ message }, index) => (index === last ? message : unacknowledged(message)));
    const protocol = batch[0]?.protocol ?? NETLINK.ROUTE;
    const answer = decodeAnswer(await netlink.netlink(protocol, concatenate(together), signal));
    if (answer.errno === undefined) continue;
    for (const request of batch) await exchange(netlink, request, signal);
  }
}

/** The message, to be answered only if it is refused. */
function unacknowledged(message: Uint8Array): Uint8Array {
  const copy = message.slice();
  const view = new DataView(copy.buffer);
  view.setUint16(6, view.getUint16(6, true) & ~NLM_F.ACK, true);
  return copy;
}

function align(part: Uint8Array): Uint8Array {
  if (part.length % 4 === 0) return part;
  const aligned = new Uint8Array((part.length + 3) & ~3);
  aligned.set(part);
  return aligned;
}

function malformed(what: string, length: number): SwarmError {
  return new SwarmError("data_loss", `netlink: ${what} of impossible length ${length}`);
}
