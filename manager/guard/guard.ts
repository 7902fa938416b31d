/**
 * Stands between the doors and the Control API: every call comes through here, whoever it is of.
 *
 *   door ── access.ts: may this role call it? ──▶ guard ── rules.ts: is what it is about within reach? ──▶ Control
 *                                                  │◀── what of the answer may be shown ◀──────────────────┘
 *                                                  ├── a user's streams end when the user is removed
 *                                                  └── changes.ts: who changed what, written down
 *
 * Nobody without an identity comes through: a door that forgets to say who comes is shut.
 */
import type { DescMethod, Message, MessageInitShape } from "@bufbuild/protobuf";
import { abortable } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { CallContext, PeerIdentity, ServiceImplementation } from "../../common/rpc/service.ts";
import { Control } from "../../proto/gen/swarm/v1/control_pb.js";
import { membersOf, revocation } from "../access.ts";
import type { View } from "../store/view.ts";
import type { Audit } from "./audit.ts";
import { GuardedCall } from "./guarded-call.ts";

/** What the guard stands on. */
export interface GuardOptions {
  readonly view: View;
  readonly audit: Audit;
}

type ControlImplementation = ServiceImplementation<typeof Control>;
type Answer = MessageInitShape<DescMethod["output"]>;
type Answers = AsyncIterable<Answer>;
type Run = (request: unknown, context: CallContext) => unknown;

/** The same API, for those who may. */
export function guardControl(control: ControlImplementation, options: GuardOptions): ControlImplementation {
  const guarded: Record<string, unknown> = {};
  const implementation = control as unknown as Readonly<Record<string, Run>>;
  for (const method of Control.methods as readonly DescMethod[]) {
    const run = implementation[method.localName];
    if (!run) throw new SwarmError("unimplemented", `${method.name} is not implemented`);
    guarded[method.localName] = guardMethod(method, run, options);
  }
  return guarded as unknown as ControlImplementation;
}

function guardMethod(method: DescMethod, run: Run, options: GuardOptions): unknown {
  const begin = (context: CallContext) => new GuardedCall(method, context.peer, options);
  switch (method.methodKind) {
    case "unary":
      return async (request: Message, context: CallContext) => {
        const call = begin(context);
        return await call.settle(async () => {
          call.admit(request);
          return (await run(request, context)) as Answer;
        });
      };
    case "client_streaming":
      return async (requests: AsyncIterable<Message>, context: CallContext) => {
        const call = begin(context);
        return await call.settle(async () => (await run(call.admitFirst(requests), context)) as Answer);
      };
    case "server_streaming":
      return (request: Message, context: CallContext) => {
        const call = begin(context);
        call.admit(request);
        return call.follow(whileTrusted(context, options.view, (inner) => run(request, inner) as Answers));
      };
    case "bidi_streaming":
      return (requests: AsyncIterable<Message>, context: CallContext) => {
        const call = begin(context);
        return call.follow(
          whileTrusted(context, options.view, (inner) => run(call.admitFirst(requests), inner) as Answers),
        );
      };
  }
}

/** A stream; a user's ends with the right to it. */
function whileTrusted(context: CallContext, view: View, open: (context: CallContext) => Answers): Answers {
  const { identity } = context.peer;
  return identity?.kind === "user" ? usersStream({ context, identity, view }, open) : open(context);
}

async function* usersStream(
  of: { readonly context: CallContext; readonly identity: PeerIdentity; readonly view: View },
  open: (context: CallContext) => Answers,
): AsyncGenerator<Answer, void, undefined> {
  const left = new AbortController();
  const signal = AbortSignal.any([of.context.signal, left.signal]);
  const watching = leaveWhenRevoked(of, left, signal);
  const answers = open({ ...of.context, signal })[Symbol.asyncIterator]();
  try {
    while (true) {
      const next = await abortable(answers.next(), signal);
      if (next.done) return;
      yield next.value;
    }
  } finally {
    left.abort(new SwarmError("canceled", "call ended"));
    answers.return?.()?.catch(() => {});
    await watching;
  }
}

/** Aborts `left` with the reason when the identity counts no more; ends with `signal`. */
async function leaveWhenRevoked(
  { identity, view }: { readonly identity: PeerIdentity; readonly view: View },
  left: AbortController,
  signal: AbortSignal,
): Promise<void> {
  const members = membersOf(view);
  try {
    for await (const batch of view.changes(signal)) {
      if (!batch.some(({ kind }) => kind === "user")) continue;
      const problem = revocation(identity, members);
      if (problem !== undefined) left.abort(new SwarmError("permission_denied", problem));
    }
  } catch (reason) {
    if (!signal.aborted) throw reason;
  }
}
