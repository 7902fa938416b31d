/**
 * From a stack's stored content to writes: what of it the cluster does not have yet. Level-triggered, so that whoever finds
 * a stack half applied (the manager that was asked, or the leader after it) goes on from what is there. Pure.
 *
 *   networks missing ──▶ networks ──▶ volumes, services ──▶ services, networks removed ──▶ nothing left: the stack is APPLIED
 */
import { create, equals } from "@bufbuild/protobuf";
import { type Branded, newId, type ServiceId } from "../../common/base/id.ts";
import type { Random } from "../../common/base/random.ts";
import { toTimestamp } from "../../common/model/duration.ts";
import { sameServiceSpec, taskSpecChanged } from "../../common/model/task-diff.ts";
import {
  ServiceSchema,
  SpecVersionSchema,
  type StackContent,
  VolumeSchema,
} from "../../proto/gen/swarm/v1/objects_pb.js";
import { type ServiceSpec, type VolumeSpec, VolumeSpecSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { type ContentView, resolveContents } from "../control/content-references.ts";
import { advanced } from "../control/service-versions.ts";
import { versionId } from "../store/kinds.ts";
import { effectivePins, samePins } from "../store/pins.ts";
import type { Proposal } from "../store/proposal.ts";
import type { View } from "../store/view.ts";
import { fileRemovals, fileSteps, withFiles } from "./files.ts";
import { networkRemovals, networkSteps } from "./networks.ts";
import { NAMESPACE_LABEL } from "./stack-view.ts";

/** What makes new objects. */
export interface StepContext {
  readonly nowMs: number;
  readonly random: Random;
}

/** Spec versions that go in one transaction with their service; the reaper takes what is left. */
const SPECS_PER_TRANSACTION = 90;

/** The groups of writes that are still to be made; each is made whole or not at all. Removals come when all else is there. */
export function remainingSteps(view: View, content: StackContent, context: StepContext): Proposal[][] {
  const contents = withFiles(view, content);
  const networks = networkSteps(view, content, context.random);
  if (networks.length > 0) return networks;
  const updates = [
    ...fileSteps(view, content),
    ...content.volumes.map((spec) => volumeStep(view, spec, context)),
    ...content.services.map((spec) => serviceStep(view, spec, contents, context)),
  ].filter((group) => group.length > 0);
  return updates.length > 0 ? updates : removalSteps(view, content);
}

/** Everything at once: for a stack that fits into one transaction. */
export function allSteps(view: View, content: StackContent, context: StepContext): Proposal[] {
  const contents = withFiles(view, content);
  return [
    ...networkSteps(view, content, context.random).flat(),
    ...fileSteps(view, content).flat(),
    ...content.volumes.flatMap((spec) => volumeStep(view, spec, context)),
    ...content.services.flatMap((spec) => serviceStep(view, spec, contents, context)),
    ...removalSteps(view, content).flat(),
  ];
}

function serviceStep(view: View, spec: ServiceSpec, contents: ContentView, { nowMs, random }: StepContext): Proposal[] {
  const present = view.serviceByName(spec.name);
  const { pins } = resolveContents(contents, spec);
  const made = { spec, pins: [...pins], createdAt: toTimestamp(nowMs) };
  if (present === undefined) {
    const serviceId = newId<ServiceId>(random);
    const object = create(ServiceSchema, { id: serviceId, name: spec.name, specVersion: 1n, taskVersion: 1n });
    const version = create(SpecVersionSchema, { ...made, serviceId, version: 1n, taskVersion: 1n });
    return [
      { type: "create", kind: "service", object },
      { type: "create", kind: "spec", object: version },
    ];
  }
  const before = view.specVersion(present.id, present.specVersion)?.spec;
  const repinned = !samePins(effectivePins(view, present.id, present.specVersion), pins);
  if (before === undefined || (sameServiceSpec(before, spec) && !repinned)) return [];
  const version = present.specVersion + 1n;
  const replaced = repinned || taskSpecChanged(before, spec);
  const object = advanced(present, { version, replaced, rollback: false, nowMs });
  const next = create(SpecVersionSchema, { ...made, serviceId: present.id, version, taskVersion: object.taskVersion });
  return [
    { type: "create", kind: "spec", object: next },
    { type: "update", kind: "service", object },
  ];
}

function volumeStep(view: View, spec: VolumeSpec, { random }: StepContext): Proposal[] {
  const present = view.byName("volume", spec.name);
  if (present === undefined) {
    const id = newId<Branded<"volume">>(random);
    return [{ type: "create", kind: "volume", object: create(VolumeSchema, { id, name: spec.name, spec }) }];
  }
  if (present.spec && equals(VolumeSpecSchema, present.spec, spec)) return [];
  return [{ type: "update", kind: "volume", object: { ...present, spec } }];
}

function removalSteps(view: View, content: StackContent): Proposal[][] {
  const stack = content.services[0]?.labels[NAMESPACE_LABEL];
  const services = content.removedServices.flatMap((name) => {
    const service = view.serviceByName(name);
    if (service === undefined) return [];
    const owner = view.specVersion(service.id, service.specVersion)?.spec?.labels[NAMESPACE_LABEL];
    // Somebody has made another service of this name meanwhile.
    return stack !== undefined && owner !== stack ? [] : [removeService(view, service.id)];
  });
  return [...services, ...fileRemovals(view, content), ...networkRemovals(view, content)];
}

/** Takes a service away with its spec versions; its tasks stay until the loops have stopped them. */
export function removeService(view: View, serviceId: string): Proposal[] {
  const versions = view.specVersions(serviceId).slice(-SPECS_PER_TRANSACTION);
  return [
    { type: "delete", kind: "service", id: serviceId },
    ...versions.map(({ version }): Proposal => ({ type: "delete", kind: "spec", id: versionId(serviceId, version) })),
  ];
}
