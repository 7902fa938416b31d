/** The tasks of each service that are in some state: the pending work of a loop. */
export class TaskSet {
  readonly #byService = new Map<string, Set<string>>();

  add(serviceId: string, taskId: string): void {
    const ids = this.#byService.get(serviceId);
    if (ids) ids.add(taskId);
    else this.#byService.set(serviceId, new Set([taskId]));
  }

  delete(serviceId: string, taskId: string): void {
    const ids = this.#byService.get(serviceId);
    ids?.delete(taskId);
    if (ids?.size === 0) this.#byService.delete(serviceId);
  }

  of(serviceId: string): ReadonlySet<string> {
    return this.#byService.get(serviceId) ?? NONE;
  }

  services(): Iterable<string> {
    return this.#byService.keys();
  }
}

const NONE: ReadonlySet<string> = new Set();
