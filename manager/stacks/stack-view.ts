/** What belongs to a stack, read from the store. Pure. */
import { gunzipSync, gzipSync } from "node:zlib";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type Service,
  type Stack,
  type StackContent,
  StackContentSchema,
  type StackRevision,
} from "../../proto/gen/swarm/v1/objects_pb.js";
import type { ServiceSpec } from "../../proto/gen/swarm/v1/types_pb.js";
import type { View } from "../store/view.ts";

/** Docker's label on what belongs to a stack. */
export const NAMESPACE_LABEL = "com.docker.stack.namespace";

/** A stored content that unpacks to more than this was not written by us. */
const CONTENT_BYTES_MAX = 64 * 1024 * 1024;

/** A service with the spec that is in force. */
export interface PresentService {
  readonly service: Service;
  readonly spec: ServiceSpec;
}

/** The service's newest spec; undefined for a service that has lost it. */
export function presentService(view: View, service: Service): PresentService | undefined {
  const spec = view.specVersion(service.id, service.specVersion)?.spec;
  return spec && { service, spec };
}

/** The name of the stack that a service's labels put it into. */
export function stackNameOf(spec: ServiceSpec | undefined): string | undefined {
  return spec?.labels[NAMESPACE_LABEL];
}

/** The services that bear the stack's label, in order of name. */
export function servicesOfStack(view: View, name: string): PresentService[] {
  const own: PresentService[] = [];
  for (const service of view.services.values()) {
    const present = presentService(view, service);
    if (present && stackNameOf(present.spec) === name) own.push(present);
  }
  return own.sort((left, right) => (left.service.name < right.service.name ? -1 : 1));
}

export function packContent(content: StackContent): Uint8Array {
  return gzipSync(toBinary(StackContentSchema, content));
}

export function unpackContent(revision: StackRevision): StackContent {
  return fromBinary(StackContentSchema, gunzipSync(revision.content, { maxOutputLength: CONTENT_BYTES_MAX }));
}

/** The revision that a stack is at. */
export function newestRevision(view: View, stack: Stack): StackRevision | undefined {
  return view.versionOf("stackrevision", stack.id, stack.revision);
}
