/**
 * Compares the addresses that are taken with those that the store's tasks and services have. They cannot differ, unless there is
 * a mistake in this program: then an address would be lost to its network, or be given twice. Both are mended and told.
 */
import type { View } from "../store/view.ts";
import type { AddressBook } from "./address-book.ts";
import { type Held, heldByService, heldByTask } from "./held.ts";

/** What an audit mended. */
export interface AuditFindings {
  /** Given back: nobody has them. */
  readonly leaked: number;
  /** Taken: somebody has them. */
  readonly missing: number;
}

/** An address that nobody seems to have may be on its way to the store: it is given back when the next audit finds it, too. */
export class AddressAudit {
  readonly #book: AddressBook;
  #suspects: ReadonlyMap<string, string> = new Map();

  constructor(book: AddressBook) {
    this.#book = book;
  }

  run(view: Pick<View, "services" | "tasks">): AuditFindings {
    const suspects = new Map<string, string>();
    let leaked = 0;
    for (const { address, holder } of this.#book.entries()) {
      const held = view.tasks.has(holder)
        ? heldByTask(view.tasks.get(holder))
        : heldByService(view.services.get(holder));
      if (has(held, address)) continue;
      if (this.#suspects.get(address) !== holder) suspects.set(address, holder);
      else {
        this.#book.release(address, holder);
        leaked += 1;
      }
    }
    this.#suspects = suspects;
    let missing = 0;
    const take = (holder: string, held: Held) => {
      for (const address of held) {
        if (this.#book.holderOf(address) !== undefined) continue;
        this.#book.take(address, holder);
        missing += 1;
      }
    };
    for (const task of view.tasks.values()) take(task.id, heldByTask(task));
    for (const service of view.services.values()) take(service.id, heldByService(service));
    return { leaked, missing };
  }
}

function has(held: Held, address: string): boolean {
  return held.some((each) => each === address || each.startsWith(`${address}/`));
}
