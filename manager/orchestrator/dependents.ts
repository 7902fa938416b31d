import type { View } from "../store/view.ts";
import { isReleased } from "../waiting.ts";

/** Which services wait for a service of some name: an index, so that a task's change costs a look-up and no scan. */
export class Dependents {
  readonly #byName = new Map<string, Set<string>>();
  /** The names that each waiting service was noted under. */
  readonly #names = new Map<string, readonly string[]>();

  /** Takes a service's present `depends_on`; one that is gone or was let go waits for nobody. */
  note(view: View, serviceId: string): void {
    for (const name of this.#names.get(serviceId) ?? []) {
      const waiting = this.#byName.get(name);
      waiting?.delete(serviceId);
      if (waiting?.size === 0) this.#byName.delete(name);
    }
    this.#names.delete(serviceId);
    const service = view.services.get(serviceId);
    const spec = service && view.specVersion(serviceId, service.specVersion)?.spec;
    if (service === undefined || spec === undefined || isReleased(service, spec)) return;
    const names = spec.dependsOn.map((dependency) => dependency.service);
    this.#names.set(serviceId, names);
    for (const name of names) this.#byName.set(name, (this.#byName.get(name) ?? new Set()).add(serviceId));
  }

  /** Services that wait for the one of this name. */
  of(name: string): Iterable<string> {
    return this.#byName.get(name) ?? [];
  }
}
