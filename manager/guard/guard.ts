/**
 * Stands between the doors and the Control API: every call comes through here, whoever it is of.
 *
 *   door ── access.ts: may this role call it? ──▶ guard ── rules.ts: is what it is about within reach? ──▶ Control
 *                                                  │◀── what of the answer may be shown ◀──────────────────┘
 *                                                  └── a user's streams end when the user is removed
 *
 * Nobody without an identity comes through: a door that forgets to say who comes is shut.
 */
import { create, type DescMethod, type Message, type MessageInitShape } from "@bufbuild/protobuf";
import { abortable } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { CallContext, PeerIdentity, ServiceImplementation } from "../../common/rpc/service.ts";
import { Control } from "../../proto/gen/swarm/v1/control_pb.js";
import { membersOf, revocation } from "../access.ts";
import type { View } from "../store/view.ts";
import { reachOf, requireWithin } from "./reach.ts";
import { type MethodName, RULES } from "./rules.ts";

/** What the guard stands on. */
export interface GuardOptions {
  readonly view: View;
}

type ControlImplementation = ServiceImplementation<typeof Control>;
type Answer = MessageInitShape<DescMethod["output"]>;
type Answers = AsyncIterable<Answer>;
/** Any method's rule: request and rule are of the same method by the table's type. */
interface AnyRule {
  about(view: View, request: Message): ReturnType<(typeof RULES)[MethodName]["about"]>;
  shows?(reach: NonNullable<ReturnType<typeof reachOf>>): (answer: Message) => Message;
}
type Implementation = Readonly<Record<string, (request: unknown, context: CallContext) => unknown>>;

/** The same API, for those who may. */
export function guardControl(control: ControlImplementation, { view }: GuardOptions): ControlImplementation {
  const guarded: Record<string, unknown> = {};
  const implementation = control as unknown as Implementation;
  for (const method of Control.methods as readonly DescMethod[]) {
    guarded[method.localName] = new GuardedMethod(method, implementation, view).wrapped();
  }
  return guarded as unknown as ControlImplementation;
}

/** What one call is judged by. */
interface Judge {
  readonly identity: PeerIdentity;
  /** Throws `permission_denied` for what is out of reach. */
  admit(request: Message): void;
  show(answer: Answer): Answer;
}

class GuardedMethod {
  readonly #method: DescMethod;
  readonly #run: (request: unknown, context: CallContext) => unknown;
  readonly #view: View;
  readonly #rule: AnyRule;

  constructor(method: DescMethod, control: Implementation, view: View) {
    const run = control[method.localName];
    if (!run) throw new SwarmError("unimplemented", `${method.name} is not implemented`);
    this.#method = method;
    this.#run = run;
    this.#view = view;
    this.#rule = RULES[method.localName as MethodName] as unknown as AnyRule;
  }

  /** As the service has it. */
  wrapped(): unknown {
    switch (this.#method.methodKind) {
      case "unary":
        return async (request: Message, context: CallContext) => {
          const judge = this.#judge(context);
          judge.admit(request);
          return judge.show((await this.#run(request, context)) as Answer);
        };
      case "client_streaming":
        return async (requests: AsyncIterable<Message>, context: CallContext) => {
          const judge = this.#judge(context);
          return judge.show((await this.#run(judged(requests, judge), context)) as Answer);
        };
      case "server_streaming":
        return (request: Message, context: CallContext) => {
          const judge = this.#judge(context);
          judge.admit(request);
          return this.#stream(judge, context, (inner) => this.#run(request, inner) as Answers);
        };
      case "bidi_streaming":
        return (requests: AsyncIterable<Message>, context: CallContext) => {
          const judge = this.#judge(context);
          return this.#stream(judge, context, (inner) => this.#run(judged(requests, judge), inner) as Answers);
        };
    }
  }

  #judge({ peer: { identity } }: CallContext): Judge {
    const { name, output } = this.#method;
    if (identity === undefined) throw new SwarmError("unauthenticated", `${name}: nobody said who calls`);
    const reach = reachOf(identity);
    if (reach === undefined) return { identity, admit: () => {}, show: (answer) => answer };
    const shows = this.#rule.shows?.(reach);
    return {
      identity,
      admit: (request) => requireWithin(reach, this.#rule.about(this.#view, request)),
      show: (answer) => (shows ? shows(create(output, answer)) : answer),
    };
  }

  /** Of a user, one that ends with the right to it. */
  #stream(judge: Judge, context: CallContext, open: (context: CallContext) => Answers): Answers {
    return judge.identity.kind === "user" ? this.#trusted(judge, context, open) : open(context);
  }

  async *#trusted(judge: Judge, context: CallContext, open: (context: CallContext) => Answers): Answers {
    const left = new AbortController();
    const signal = AbortSignal.any([context.signal, left.signal]);
    const watching = this.#whileTrusted(judge.identity, left, signal);
    const answers = open({ ...context, signal })[Symbol.asyncIterator]();
    try {
      while (true) {
        const next = await abortable(answers.next(), signal);
        if (next.done) return;
        yield judge.show(next.value);
      }
    } finally {
      left.abort(new SwarmError("canceled", "call ended"));
      answers.return?.()?.catch(() => {});
      await watching;
    }
  }

  /** Aborts `left` with the reason when the identity counts no more; ends with `signal`. */
  async #whileTrusted(identity: PeerIdentity, left: AbortController, signal: AbortSignal): Promise<void> {
    const members = membersOf(this.#view);
    try {
      for await (const batch of this.#view.changes(signal)) {
        if (!batch.some(({ kind }) => kind === "user")) continue;
        const problem = revocation(identity, members);
        if (problem !== undefined) left.abort(new SwarmError("permission_denied", problem));
      }
    } catch (reason) {
      if (!signal.aborted) throw reason;
    }
  }
}

/** The requests of a stream, of which the first says what it is about. */
async function* judged(requests: AsyncIterable<Message>, judge: Judge): AsyncGenerator<Message, void, undefined> {
  let isFirst = true;
  for await (const request of requests) {
    if (isFirst) judge.admit(request);
    isFirst = false;
    yield request;
  }
}
