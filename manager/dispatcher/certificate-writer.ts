/**
 * Brings what nodes tell of their certificates into the store. They tell at once when the authority changes: reports share
 * transactions.
 */
import { equals } from "@bufbuild/protobuf";
import { abortable, type Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { Logger } from "../../common/base/logger.ts";
import { Wakeup } from "../../common/base/wakeup.ts";
import { type NodeCertificate, NodeCertificateSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { ProposalGroup } from "../store/proposal.ts";
import type { Store } from "../store/store.ts";

/** How long a report waits for others: a rotation waits for it in turn. */
const GATHER_MS = 20;
/** Reports written at once; the rest wait for the next round. */
const WRITES_MAX = 1_000;
/** A node that keeps changing under our hands comes again. */
const ATTEMPTS_MAX = 5;

interface Report {
  readonly certificate: NodeCertificate;
  readonly settle: () => void;
  readonly fail: (reason: SwarmError) => void;
}

export class CertificateWriter {
  readonly #options: { readonly store: Store; readonly clock: Clock; readonly logger: Logger };
  readonly #wakeup = new Wakeup();
  /** By node: the newest counts, and the older one's caller is told when it is written. */
  readonly #waiting = new Map<string, Report>();

  constructor(options: { readonly store: Store; readonly clock: Clock; readonly logger: Logger }) {
    this.#options = options;
  }

  /** Resolves once it is in the store, or the node is gone. Throws `unavailable`. */
  async report(nodeId: string, certificate: NodeCertificate, signal: AbortSignal): Promise<void> {
    if (this.#isStored(nodeId, certificate)) return;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const older = this.#waiting.get(nodeId);
    const settle = () => {
      older?.settle();
      resolve();
    };
    const fail = (reason: SwarmError) => {
      older?.fail(reason);
      reject(reason);
    };
    this.#waiting.set(nodeId, { certificate, settle, fail });
    this.#wakeup.wake();
    await abortable(promise, signal);
  }

  /** Writes until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#options;
    while (true) {
      await this.#wakeup.wait(signal);
      await clock.sleep(GATHER_MS, signal);
      while (this.#waiting.size > 0) {
        const batch = new Map([...this.#waiting].slice(0, WRITES_MAX));
        for (const nodeId of batch.keys()) this.#waiting.delete(nodeId);
        try {
          await this.#write(batch, signal);
        } catch (reason) {
          const error = SwarmError.wrap("store nodes' certificates", reason);
          logger.warn({ err: error, nodes: batch.size }, "nodes' certificates not stored, agents will tell again");
          for (const report of batch.values()) report.fail(error);
        }
      }
    }
  }

  async #write(batch: Map<string, Report>, signal: AbortSignal): Promise<void> {
    const { store, clock } = this.#options;
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const groups: ProposalGroup[] = [];
      for (const [nodeId, report] of batch) {
        const node = store.view.nodes.get(nodeId);
        if (node === undefined || this.#isStored(nodeId, report.certificate)) {
          report.settle();
          batch.delete(nodeId);
        } else {
          const certificate = { ...report.certificate, askedRotation: node.certificate?.askedRotation ?? "" };
          groups.push({ type: "update", kind: "node", object: { ...node, certificate } });
        }
      }
      if (groups.length === 0) return;
      await store.commit(groups, { signal });
      // What was written is told by the view, in the next turn.
      if (attempt > 0) await clock.sleep(GATHER_MS, signal);
    }
    for (const [nodeId, { fail }] of batch) fail(new SwarmError("aborted", `node ${nodeId} keeps changing`));
  }

  #isStored(nodeId: string, told: NodeCertificate): boolean {
    const stored = this.#options.store.view.nodes.get(nodeId)?.certificate;
    if (stored === undefined) return false;
    return equals(NodeCertificateSchema, { ...stored, askedRotation: told.askedRotation }, told);
  }
}
