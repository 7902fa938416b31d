/**
 * People and CI with a swarmctl elsewhere. Their key stays where it was made; what they may do stands in their certificate, and
 * which certificate counts, in the store: who is removed, or gets another one, is refused by the old one at once.
 */
import { create } from "@bufbuild/protobuf";
import { type FieldProblem, invalidFields, SwarmError } from "../../common/base/error.ts";
import { type Branded, newId } from "../../common/base/id.ts";
import { durationMs, toTimestamp } from "../../common/model/duration.ts";
import { subjectProblems, type UserRole, type UserSubject } from "../../common/pki/identity.ts";
import { lifetimeProblem } from "../../common/pki/validity.ts";
import type { ServiceImplementation } from "../../common/rpc/service.ts";
import {
  type Control,
  type CreateUserRequest,
  type CreateUserResponse,
  CreateUserResponseSchema,
} from "../../proto/gen/swarm/v1/control_pb.js";
import { type User, User_Role, UserSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { certificateFacts } from "../ca/cluster-ca.ts";
import type { Proposal } from "../store/proposal.ts";
import type { ControlDependencies } from "./dependencies.ts";
import { userLookup } from "./lookups.ts";
import { requireId, resolveReferences } from "./references.ts";

/** More would make each list a burden; a thousand people are a company. */
const USERS_MAX = 1_000;
/** How often a removal is tried again when the user was given another certificate meanwhile. */
const ATTEMPTS_MAX = 5;
const ROLES: Readonly<Record<User_Role, UserRole | undefined>> = {
  [User_Role.UNKNOWN]: undefined,
  [User_Role.VIEWER]: "swarm-viewer",
  [User_Role.DEPLOYER]: "swarm-deployer",
  [User_Role.ADMIN]: "swarm-admin",
};

/** The calls of the Control API that are about users. */
export function userMethods(
  dependencies: ControlDependencies,
): Pick<ServiceImplementation<typeof Control>, "createUser" | "listUsers" | "removeUser"> {
  return {
    createUser: (request, { signal }) => createUser(dependencies, request, signal),
    listUsers: async ({ references }) => ({ users: listUsers(dependencies, references) }),
    removeUser: async ({ userId }, { signal }) => {
      await removeUser(dependencies, userId, signal);
      return {};
    },
  };
}

/**
 * Makes a user, or with `replace` gives one that is there another certificate, role and reach.
 * @throws invalid_argument: every bad field. already_exists. aborted: somebody else made or replaced it meanwhile.
 */
async function createUser(
  { store, authority, random }: ControlDependencies,
  request: CreateUserRequest,
  signal: AbortSignal,
): Promise<CreateUserResponse> {
  await authority.ensure(signal);
  const { view } = store;
  const subject = subjectOf(request, authority.clusterId);
  const { name } = subject;
  const present = view.byName("user", name);
  if (present && !request.replace) throw new SwarmError("already_exists", `user ${name} is there already`);
  if (!present && view.users.size >= USERS_MAX) {
    throw new SwarmError("resource_exhausted", `there are ${USERS_MAX} users, which is the most`);
  }
  const { certificate, chain } = await authority.issue(
    subject,
    request.certificateRequest,
    [],
    durationMs(request.lifetime),
  );
  const object = create(UserSchema, {
    ...(present ?? { id: newId<Branded<"user">>(random), name }),
    role: request.role,
    stackPrefixes: request.stackPrefixes,
    serial: certificate.serialNumber.toLowerCase(),
    expiresAt: toTimestamp(certificate.validToDate.getTime()),
    issuerKey: certificateFacts(certificate, authority.certificates).issuerKey,
  });
  const proposal: Proposal = { type: present ? "update" : "create", kind: "user", object };
  const { conflicts } = await store.commit([proposal], { signal });
  if (conflicts.length > 0) throw new SwarmError("aborted", `create user ${name}: it has changed meanwhile, try again`);
  return create(CreateUserResponseSchema, {
    user: view.byName("user", name) ?? object,
    certificates: chain,
    roots: authority.roots,
    managers: [...view.managers.values()].map(({ address }) => address).sort(),
    clusterId: authority.clusterId,
  });
}

/** Users by reference, or all, in order of name. */
function listUsers({ store }: ControlDependencies, references: readonly string[]): User[] {
  const users = [...resolveReferences(userLookup(store.view), references)];
  return users.sort((left, right) => (left.name < right.name ? -1 : Number(left.name > right.name)));
}

async function removeUser({ store }: ControlDependencies, id: string, signal: AbortSignal): Promise<void> {
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    requireId(store.view.users, "user", id);
    const { conflicts } = await store.commit([{ type: "delete", kind: "user", id }], { signal });
    if (conflicts.length === 0) return;
  }
  throw new SwarmError("aborted", `remove user ${id}: it keeps changing, try again`);
}

function subjectOf(
  { name, role, stackPrefixes, lifetime }: CreateUserRequest,
  clusterId: UserSubject["clusterId"],
): UserSubject {
  const word = ROLES[role];
  const reach = stackPrefixes.length === 0 ? {} : { stackPrefixes };
  const subject: UserSubject = { kind: "user", name, role: word ?? "swarm-viewer", clusterId, ...reach };
  const problems: FieldProblem[] = [...subjectProblems(subject)];
  if (word === undefined) problems.push({ field: "role", problem: "must be viewer, deployer or admin" });
  if (word === "swarm-admin" && stackPrefixes.length > 0) {
    problems.push({ field: "stack prefixes", problem: "are for viewers and deployers: an admin may do everything" });
  }
  const lifetimeMs = durationMs(lifetime);
  const lifetimeFault = lifetimeMs === undefined ? undefined : lifetimeProblem(lifetimeMs);
  if (lifetimeFault !== undefined) problems.push({ field: "lifetime", problem: lifetimeFault });
  if (problems.length > 0) throw invalidFields(problems);
  return subject;
}
