/** One call of the Control API on its way through the guard: judged by its first request, and written down if it changes something. */
import { create, type DescMethod, type Message, type MessageInitShape } from "@bufbuild/protobuf";
import { SwarmError } from "../../common/base/error.ts";
import type { Peer } from "../../common/rpc/service.ts";
import type { View } from "../store/view.ts";
import type { Audit, Outcome } from "./audit.ts";
import { CHANGES, MADE, type What } from "./changes.ts";
import { type Reach, reachOf, requireWithin, type Subject } from "./reach.ts";
import { type MethodName, RULES } from "./rules.ts";

type Answer = MessageInitShape<DescMethod["output"]>;

/** Rows of the tables for any method: request, answer and row are of the same method by the tables' types. */
interface AnyRule {
  about(view: View, request: Message): readonly Subject[];
  shows?(reach: Reach): (answer: Message) => Message;
}
type AnyChange = ((view: View, request: Message) => What) | undefined;
type AnyMade = ((answer: Message) => string | undefined) | undefined;

export class GuardedCall {
  readonly #method: DescMethod;
  readonly #peer: Peer;
  readonly #view: View;
  readonly #audit: Audit;
  readonly #reach: Reach | undefined;
  readonly #shows: ((answer: Message) => Message) | undefined;
  /** What it changes, once that is known. */
  #what: What | undefined;

  /** Throws `unauthenticated` for a caller without an identity. */
  constructor(method: DescMethod, peer: Peer, { view, audit }: { readonly view: View; readonly audit: Audit }) {
    if (peer.identity === undefined) throw new SwarmError("unauthenticated", `${method.name}: nobody said who calls`);
    this.#method = method;
    this.#peer = peer;
    this.#view = view;
    this.#audit = audit;
    this.#reach = reachOf(peer.identity);
    this.#shows = this.#reach && this.#rule.shows?.(this.#reach);
  }

  /** Throws `permission_denied` for a request about something out of reach. */
  admit(request: Message): void {
    const change = CHANGES[this.#method.localName as MethodName] as AnyChange;
    this.#what = change?.(this.#view, request);
    if (this.#reach) requireWithin(this.#reach, this.#rule.about(this.#view, request));
  }

  /** The requests of a stream, of which the first says what it is about. */
  async *admitFirst(requests: AsyncIterable<Message>): AsyncGenerator<Message, void, undefined> {
    let isFirst = true;
    for await (const request of requests) {
      if (isFirst) {
        this.admit(request);
        // It may go on for an hour, or be cut short with the manager.
        if (this.#method.methodKind === "bidi_streaming") this.#record({ result: "begun" });
      }
      isFirst = false;
      yield request;
    }
  }

  /** Runs a call with one answer. */
  async settle(work: () => Promise<Answer>): Promise<Answer> {
    try {
      const answer = await work();
      this.#record({ result: "ok" }, answer);
      return this.#shown(answer);
    } catch (failure) {
      this.#record({ failure });
      throw failure;
    }
  }

  /** Hands a stream's answers on. */
  async *follow(answers: AsyncIterable<Answer>): AsyncGenerator<Answer, void, undefined> {
    let outcome: Outcome = { failure: new SwarmError("canceled", "the caller left") };
    try {
      for await (const answer of answers) yield this.#shown(answer);
      outcome = { result: "ok" };
    } catch (failure) {
      outcome = { failure };
      throw failure;
    } finally {
      this.#record(outcome);
    }
  }

  #shown(answer: Answer): Answer {
    return this.#shows ? this.#shows(create(this.#method.output, answer)) : answer;
  }

  #record(outcome: Outcome, answer?: Answer): void {
    if (this.#what === undefined) return;
    const made = MADE[this.#method.localName as MethodName] as AnyMade;
    const name = this.#what.name || (answer && made?.(answer as Message));
    this.#audit.record({ peer: this.#peer, method: this.#method.name, what: { ...this.#what, name } }, outcome);
  }

  get #rule(): AnyRule {
    return RULES[this.#method.localName as MethodName] as unknown as AnyRule;
  }
}
