/**
 * What Docker has and this cluster has not (yet): each command and flag by Docker's name with the reason and what to do
 * instead, so that nobody has to guess whether it was mistyped. Exit code 1. The commands and flags are docker/cli's.
 */
import { SwarmError } from "../common/base/error.ts";
import type { Flags, FlagTable } from "./flags/parse.ts";

/** Flags that are known and refused. */
export interface RefusedFlags {
  readonly flags: FlagTable;
  readonly reasons: Readonly<Record<string, string>>;
}

/** `--external-ca`, wherever it is. */
const NO_CFSSL =
  "certificates are signed by the managers, not by a CFSSL service: give them an authority of yours by files, " +
  "swarmctl swarm ca --rotate --ca-cert FILE --ca-key FILE";
const OWN_ETCD = "the store is etcd: see its own --snapshot-count and compaction";

const NO_DATA_ADDRESS = "traffic between nodes goes by the address that the managers see a node at";

/** `swarm init`. */
export const SWARM_INIT_REFUSED = refused({
  "data-path-addr": ["text", NO_DATA_ADDRESS],
  "external-ca": ["text", NO_CFSSL],
  "max-snapshots": ["text", OWN_ETCD],
  "snapshot-interval": ["text", OWN_ETCD],
});

/** `swarm join`. */
export const SWARM_JOIN_REFUSED = refused({ "data-path-addr": ["text", NO_DATA_ADDRESS] });

/** `swarm update`. */
export const SWARM_UPDATE_REFUSED = refused({
  "external-ca": ["text", NO_CFSSL],
  "max-snapshots": ["text", OWN_ETCD],
  "snapshot-interval": ["text", OWN_ETCD],
});

/** `swarm ca`. */
export const SWARM_CA_REFUSED = refused({ "external-ca": ["text", NO_CFSSL] });

const NO_CSI = "cluster volumes (CSI) do not exist: volumes are local to nodes, or NFS and the like by --opt";

/** `volume create`. */
export const VOLUME_CREATE_REFUSED = refused({
  availability: ["text", NO_CSI],
  group: ["text", NO_CSI],
  "limit-bytes": ["text", NO_CSI],
  "required-bytes": ["text", NO_CSI],
  scope: ["text", NO_CSI],
  secret: ["text", NO_CSI],
  sharing: ["text", NO_CSI],
  "topology-preferred": ["text", NO_CSI],
  "topology-required": ["text", NO_CSI],
  type: ["text", NO_CSI],
});

const NO_TEMPLATES = "networks are made from flags or stack files: there are no configuration-only networks";

/** `network create`. */
export const NETWORK_CREATE_REFUSED = refused({
  "config-from": ["text", NO_TEMPLATES],
  "config-only": ["boolean", NO_TEMPLATES],
  ingress: ["boolean", "the routing mesh's network is always there, and there is one"],
  "ipam-opt": ["text", "the managers choose the addresses: there is no driver that has options"],
});

/** `network connect`. */
export const NETWORK_CONNECT_REFUSED = refused({
  "driver-opt": ["text", "attachments have no options"],
  "gw-priority": ["text", "a task's way out is its first network that is not internal"],
  link: ["text", "tasks find each other by their services' names"],
  "link-local-ip": ["text", "there are no link-local addresses on networks of the cluster"],
});

/** Throws `unimplemented` that names every refused flag which is given. */
export function refuseFlags(given: Flags, { reasons }: RefusedFlags): void {
  const clauses = Object.entries(reasons).flatMap(([name, reason]) =>
    given.has(name) ? [`--${name}: ${reason}`] : [],
  );
  if (clauses.length > 0) throw new SwarmError("unimplemented", clauses.join("; "));
}

function refused(table: Readonly<Record<string, readonly [kind: "boolean" | "text", reason: string]>>): RefusedFlags {
  const flags = Object.entries(table).map(
    ([name, [kind, reason]]) => [name, { kind, help: `Refused: ${reason}` }] as const,
  );
  const reasons = Object.entries(table).map(([name, [, reason]]) => [name, reason] as const);
  return { flags: Object.fromEntries(flags), reasons: Object.fromEntries(reasons) };
}

const PER_NODE = "it is about one node's engine, and there is none: see service, task and node commands";

const OF_SERVICES =
  "it is about one container: see what swarmctl service --help and swarmctl task --help have for services and tasks";
const BUILT_ELSEWHERE = "images are built and named elsewhere: push to a registry, or swarmctl image load FILE";
/** Docker's commands on containers and on an engine's images, which stand alone. */
const CONTAINER_WORDS = ["attach", "create", "diff", "export", "kill", "pause", "port", "rename", "unpause"];
/** Those that services have a word for. */
const SERVICE_WORDS = ["restart", "rm", "start", "stop", "update"];
/** Of images, beside those for which they must be built. */
const IMAGE_WORDS = {
  inspect: "use swarmctl image ls --format json: what is in an image is the nodes' matter",
  prune: "nodes clear up by themselves what no task uses; swarmctl image rm takes what image load brought",
  pull: "nodes pull what they run by themselves, or swarmctl image load FILE",
  push: "images come from registries and go to none",
};
const BUILD_WORDS = [
  "build",
  "builder",
  "buildx",
  "commit",
  "history",
  "import",
  "manifest",
  "save",
  "search",
  "tag",
  "trust",
];

const NO_EVENTS = "there is no stream of events yet: swarmctl wait and service ps tell when something is done";

/** Commands by their words, with why they are refused. `*`: every command of the group. */
const REFUSED_COMMANDS: Readonly<Record<string, string>> = {
  events: NO_EVENTS,
  "plugin *": "there are no plugins: what an agent can do is built in",
  "volume update": NO_CSI,
  "container *": PER_NODE,
  ...Object.fromEntries(CONTAINER_WORDS.map((word) => [word, OF_SERVICES])),
  ...Object.fromEntries(SERVICE_WORDS.map((word) => [word, `use swarmctl service ${word}`])),
  ...Object.fromEntries(BUILD_WORDS.flatMap((word) => [word, `image ${word}`].map((name) => [name, BUILT_ELSEWHERE]))),
  ...Object.fromEntries(Object.entries(IMAGE_WORDS).map(([word, reason]) => [`image ${word}`, reason])),
  exec: "use swarmctl service exec SERVICE COMMAND or swarmctl task exec TASK COMMAND",
  inspect: "use the inspect of what it is: swarmctl service inspect, node inspect, network inspect, …",
  run: "use swarmctl service create: everything that runs is a service's task",
  ps: "use swarmctl service ps SERVICE or swarmctl node ps NODE",
  logs: "use swarmctl service logs or swarmctl task logs",
  cp: "use swarmctl task cp TASK:SRC_PATH DEST_PATH, or swarmctl task cp SRC_PATH TASK:DEST_PATH",
  stats: "use swarmctl service stats SERVICE, swarmctl task stats TASK or swarmctl node stats [NODE]",
  top: "use swarmctl service stats SERVICE for what tasks use, swarmctl service exec SERVICE ps for their processes",
  login: "swarmctl reads what docker login left in ~/.docker/config.json, for --with-registry-auth",
  logout: "swarmctl reads ~/.docker/config.json and never writes it",
  pull: IMAGE_WORDS.pull,
  push: IMAGE_WORDS.push,
  "system df": "use swarmctl volume ls and swarmctl image ls, which have sizes",
  "system events": NO_EVENTS,
  "system prune": "images and tasks are cleared up by themselves; see swarmctl network prune and swarmctl volume prune",
  system: "use swarmctl info",
};

/** Why `first second` is refused, and its name; undefined for what is not Docker's. */
export function refusalOf(
  first: string,
  second: string | undefined,
): { readonly name: string; readonly reason: string } | undefined {
  const names = [...(second === undefined ? [] : [`${first} ${second}`, `${first} *`]), first];
  const key = names.find((each) => Object.hasOwn(REFUSED_COMMANDS, each));
  if (key === undefined) return undefined;
  return { name: key.endsWith(" *") ? `${first} ${second}` : key, reason: REFUSED_COMMANDS[key] ?? "" };
}
