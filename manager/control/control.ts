/**
 * The Control API: what people and CI call. Reads are answered from the view of whichever manager was asked; writes go
 * straight to the store, and the loops act on what they find there. It knows no loop, no agent and no wire.
 *
 *   swarmctl ── Control ──▶ validate ──▶ one transaction ──▶ store ──▶ view ──▶ answer
 */

import { create } from "@bufbuild/protobuf";
import { SwarmError } from "../../common/base/error.ts";
import type { ServiceImplementation } from "../../common/rpc/service.ts";
import {
  type Control,
  ResolveImagesRequestSchema,
  ServiceLogsRequestSchema,
} from "../../proto/gen/swarm/v1/control_pb.js";
import { LogOptionsSchema, type LogSelector, LogSelectorSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { listAudit } from "./audit.ts";
import { clusterMethods } from "./cluster-methods.ts";
import { contentMethods } from "./content-methods.ts";
import { copyFiles } from "./copy.ts";
import type { ControlDependencies } from "./dependencies.ts";
import { execInTask } from "./exec.ts";
import { listImages, missingBlobs, putBlob, putImage, removeImage } from "./images.ts";
import { serviceLookup, taskLookup } from "./lookups.ts";
import { networkMethods } from "./network-methods.ts";
import { listNodes, removeNode, updateNode } from "./nodes.ts";
import { requireId, resolveReference } from "./references.ts";
import { resolveImages } from "./resolve-images.ts";
import { setServiceStopped } from "./service-stop.ts";
import { createService, listServices, removeService, updateService } from "./services.ts";
import { applyStack, listStackRevisions, listStacks, planOnly, removeStack, rollbackStack } from "./stacks.ts";
import { watchTaskStats } from "./stats.ts";
import { listTasks } from "./tasks.ts";
import { userMethods } from "./users.ts";
import { redacted } from "./views.ts";
import { createVolume, listVolumes, removeVolume } from "./volumes.ts";
import { watchServices } from "./watch.ts";

/** The service to be served on the manager's local socket and, to clients with a certificate, on its port. */
export function createControl(dependencies: ControlDependencies): ServiceImplementation<typeof Control> {
  const { view } = dependencies.store;
  return {
    ...clusterMethods(dependencies),
    ...userMethods(dependencies),
    listAudit: (request, { signal }) => listAudit(dependencies, request, signal),
    createService: async (request, { signal }) => ({ service: await createService(dependencies, request, signal) }),
    updateService: async (request, { signal }) => ({ service: await updateService(dependencies, request, signal) }),
    removeService: async (request, { signal }) => {
      await removeService(dependencies, request, signal);
      return {};
    },
    setServiceStopped: async (request, { signal }) => ({
      service: await setServiceStopped(dependencies, request, signal),
    }),
    listServices: async (request) => ({ services: listServices(dependencies, request) }),
    listSpecVersions: async ({ serviceId }) => {
      requireId(view.services, "service", serviceId);
      const versions = view.specVersions(serviceId).map((version) => {
        const spec = redacted(version.spec);
        return spec ? { ...version, spec } : version;
      });
      return { versions };
    },
    ...contentMethods(dependencies),
    planStack: async ({ stack }) => ({ plan: planOnly(dependencies, stack) }),
    applyStack: (request, { signal }) => applyStack(dependencies, request, signal),
    rollbackStack: (request, { signal }) => rollbackStack(dependencies, request, signal),
    listStacks: async () => ({ stacks: listStacks(dependencies) }),
    listStackRevisions: async ({ name }) => listStackRevisions(dependencies, name),
    removeStack: (request, { signal }) => removeStack(dependencies, request, signal),
    listVolumes: async ({ names }) => ({ volumes: listVolumes(view, names) }),
    createVolume: async (request, { signal }) => ({ volume: await createVolume(dependencies, request, signal) }),
    removeVolume: async (request, { signal }) => {
      await removeVolume(dependencies, request, signal);
      return {};
    },
    ...networkMethods(dependencies),
    listTasks: async (request) => ({ tasks: listTasks(dependencies, request) }),
    listNodes: async (request) => ({ nodes: listNodes(dependencies, request) }),
    updateNode: async (request, { signal }) => ({ node: await updateNode(dependencies, request, signal) }),
    removeNode: async (request, { signal }) => {
      await removeNode(dependencies, request, signal);
      return {};
    },
    listImages: async (request) => ({ images: listImages(dependencies, request) }),
    removeImage: (request, { signal }) => removeImage(dependencies, request, signal),
    missingBlobs: async ({ digests }) => ({ digests: await missingBlobs(dependencies, digests) }),
    putBlob: async (requests, { signal }) => {
      await putBlob(dependencies, requests, signal);
      return {};
    },
    resolveImages: async (request, { signal }) => {
      const { images } = await resolveImages(dependencies, create(ResolveImagesRequestSchema, request), signal);
      return { images: [...images] };
    },
    putImage: async (request, { signal }) => ({ image: await putImage(dependencies, request, signal) }),
    watchServices: (request, { signal }) => watchServices(dependencies, request, signal),
    serviceLogs: (request, { signal }) => {
      const { selector, options } = create(ServiceLogsRequestSchema, request);
      const resolved = resolveSelector(dependencies, selector);
      return dependencies.logs.subscribe(resolved, options ?? create(LogOptionsSchema, { tail: -1n }), signal);
    },
    exec: (requests, { signal }) => execInTask(dependencies, requests, signal),
    copyFiles: (requests, { signal }) => copyFiles(dependencies, requests, signal),
    watchTaskStats: (request, { signal }) => watchTaskStats(dependencies, request, signal),
  };
}

/** Services and tasks by any name; the agents know only ids. */
function resolveSelector({ store }: ControlDependencies, selector: LogSelector | undefined): LogSelector {
  const serviceIds = selector?.serviceIds.map((text) => resolveReference(serviceLookup(store.view), text).id) ?? [];
  const taskIds = selector?.taskIds.map((text) => resolveReference(taskLookup(store.view), text).id) ?? [];
  if (serviceIds.length + taskIds.length === 0) {
    throw new SwarmError("invalid_argument", "selector: a service or a task must be named");
  }
  return create(LogSelectorSchema, { serviceIds, taskIds });
}
