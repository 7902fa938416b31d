/** How each kind of object is found by what people call it. */
import type { Config, Network, Node, Secret, Service, Task, User } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { View } from "../store/view.ts";
import type { Lookup } from "./references.ts";

export function serviceLookup(view: View): Lookup<Service> {
  return {
    noun: "service",
    byId: view.services,
    byName: (name) => {
      const service = view.serviceByName(name);
      return service ? [service] : [];
    },
    idOf: ({ id, name }) => `${id} (${name})`,
  };
}

export function nodeLookup(view: View): Lookup<Node> {
  return {
    noun: "node",
    byId: view.nodes,
    byName: (name) => view.nodesByHostname(name),
    idOf: ({ id, description }) => `${id} (${description?.hostname ?? ""})`,
  };
}

export function secretLookup(view: View): Lookup<Secret> {
  return {
    noun: "secret",
    byId: view.secrets,
    byName: (name) => [view.byName("secret", name) ?? []].flat(),
    idOf: ({ id, name }) => `${id} (${name})`,
  };
}

export function configLookup(view: View): Lookup<Config> {
  return {
    noun: "config",
    byId: view.configs,
    byName: (name) => [view.byName("config", name) ?? []].flat(),
    idOf: ({ id, name }) => `${id} (${name})`,
  };
}

export function networkLookup(view: View): Lookup<Network> {
  return {
    noun: "network",
    byId: view.networks,
    byName: (name) => [view.byName("network", name) ?? []].flat(),
    idOf: ({ id, name }) => `${id} (${name})`,
  };
}

export function userLookup(view: View): Lookup<User> {
  return {
    noun: "user",
    byId: view.users,
    byName: (name) => [view.byName("user", name) ?? []].flat(),
    idOf: ({ id, name }) => `${id} (${name})`,
  };
}

/** Tasks are named by id, or as `web.1`, or as `web.1.<id>`; of several that a slot had, the newest counts. */
export function taskLookup(view: View): Lookup<Task> {
  return {
    noun: "task",
    byId: view.tasks,
    byName: (name) => newestOfSlot(view, name),
    idOf: ({ id }) => id,
  };
}

function newestOfSlot(view: View, name: string): readonly Task[] {
  const match = /^(.+?)\.([0-9]+|[a-z0-9]{25})(?:\.([a-z0-9]{25}))?$/.exec(name);
  const [, serviceName = "", slot = "", id] = match ?? [];
  const service = view.serviceByName(serviceName);
  if (service === undefined) return [];
  if (id !== undefined) {
    const task = view.tasks.get(id);
    return task?.serviceId === service.id ? [task] : [];
  }
  let newest: Task | undefined;
  for (const task of view.tasksOfService(service.id)) {
    const key = task.slot > 0 ? String(task.slot) : task.nodeId;
    if (key === slot && (newest === undefined || task.attempt > newest.attempt)) newest = task;
  }
  return newest ? [newest] : [];
}
