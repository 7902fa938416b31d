import { create, fromBinary, type Message, type MessageShape, toBinary } from "@bufbuild/protobuf";
import type { GenMessage } from "@bufbuild/protobuf/codegenv2";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import {
  type Cluster,
  ClusterSchema,
  type Config,
  ConfigSchema,
  type ContentVersion,
  ContentVersionSchema,
  type Image,
  ImageSchema,
  type Ipam,
  IpamSchema,
  type LogSubscription,
  LogSubscriptionSchema,
  type ManagerInfo,
  ManagerInfoSchema,
  type Network,
  NetworkSchema,
  type Node,
  NodeSchema,
  type NodeVolumes,
  NodeVolumesSchema,
  type Secret,
  SecretSchema,
  type Service,
  ServiceSchema,
  type Session,
  SessionSchema,
  type SpecVersion,
  SpecVersionSchema,
  type Stack,
  type StackRevision,
  StackRevisionSchema,
  StackSchema,
  type StreamRequest,
  StreamRequestSchema,
  type Task,
  TaskSchema,
  type User,
  UserSchema,
  type Volume,
  VolumeSchema,
} from "../../proto/gen/swarm/v1/objects_pb.js";
import { type Meta, MetaSchema } from "../../proto/gen/swarm/v1/types_pb.js";

/** Every kind of stored object by its word in keys: `/swarm/<kind>/<id>`. */
export interface Objects {
  readonly service: Service;
  readonly spec: SpecVersion;
  readonly task: Task;
  readonly node: Node;
  readonly image: Image;
  readonly secret: Secret;
  readonly config: Config;
  readonly content: ContentVersion;
  readonly volume: Volume;
  readonly nodevolumes: NodeVolumes;
  readonly network: Network;
  readonly ipam: Ipam;
  readonly stack: Stack;
  readonly stackrevision: StackRevision;
  readonly user: User;
  readonly cluster: Cluster;
  readonly session: Session;
  readonly manager: ManagerInfo;
  readonly logs: LogSubscription;
  readonly stream: StreamRequest;
}

export type Kind = keyof Objects;

/** The kinds whose names are unique: `View.byName` finds their objects. */
export type NamedKind = "service" | "secret" | "config" | "volume" | "network" | "stack" | "user";

/** The kinds of which each object is one version of a parent: `View.versionsOf` lists them. */
export type VersionKind = "spec" | "content" | "stackrevision";

/** What the store knows of a kind. */
export interface KindInfo<T> {
  /** Decodes a stored value; `Meta.version` becomes its mod_revision. Throws on garbage. */
  decode(value: Uint8Array, modRevision: number): T;
  /** Encodes with these stamps in place of the object's Meta; kinds without Meta ignore them. */
  encode(object: T, stamps: Stamps): Uint8Array;
  idOf(object: T): string;
  /** Undefined for kinds that carry none. */
  metaOf(object: T): Meta | undefined;
  /** Whether objects carry a Meta, and with it their own version. */
  readonly hasMeta: boolean;
  /** The form of its ids: they become keys and paths, so nothing else may pass. */
  readonly idPattern: RegExp;
  /** Whether the kind's names are unique: a name key guards each. A name never changes in an object's life. */
  readonly namesUnique: boolean;
  /** The unique name; undefined for kinds without. */
  nameOf(object: T): string | undefined;
}

export interface Stamps {
  readonly createdAt: Timestamp;
  readonly updatedAt: Timestamp;
}

const ID = /^[a-z0-9]{25}$/;
/** A parent's id and a version in ten digits. */
const VERSION_ID = /^[a-z0-9]{25}\/[0-9]{10}$/;

/** The table of kinds. A new kind is a row here, a field in `Objects`, and an index in view.ts if it needs one. */
export const kinds: { readonly [K in Kind]: KindInfo<Objects[K]> } = {
  service: withMeta(ServiceSchema, { nameOf: ({ name }) => name }),
  spec: bare(SpecVersionSchema, {
    idOf: ({ serviceId, version }) => versionId(serviceId, version),
    idPattern: VERSION_ID,
  }),
  task: withMeta(TaskSchema, {}),
  node: withMeta(NodeSchema, {}),
  image: withMeta(ImageSchema, { idPattern: /^[a-f0-9]{64}$/ }),
  secret: withMeta(SecretSchema, { nameOf: ({ name }) => name }),
  config: withMeta(ConfigSchema, { nameOf: ({ name }) => name }),
  content: bare(ContentVersionSchema, {
    idOf: ({ objectId, version }) => versionId(objectId, version),
    idPattern: VERSION_ID,
  }),
  volume: withMeta(VolumeSchema, { nameOf: ({ name }) => name }),
  nodevolumes: bare(NodeVolumesSchema, { idOf: ({ nodeId }) => nodeId, idPattern: ID }),
  network: withMeta(NetworkSchema, { nameOf: ({ name }) => name }),
  ipam: withMeta(IpamSchema, { idPattern: /^default$/ }),
  stack: withMeta(StackSchema, { nameOf: ({ name }) => name }),
  stackrevision: bare(StackRevisionSchema, {
    idOf: ({ stackId, revision }) => versionId(stackId, revision),
    idPattern: VERSION_ID,
  }),
  user: withMeta(UserSchema, { nameOf: ({ name }) => name }),
  cluster: withMeta(ClusterSchema, { idPattern: /^default$/ }),
  session: bare(SessionSchema, { idOf: ({ nodeId }) => nodeId, idPattern: ID }),
  manager: bare(ManagerInfoSchema, { idOf: ({ id }) => id, idPattern: ID }),
  logs: bare(LogSubscriptionSchema, { idOf: ({ id }) => id, idPattern: ID }),
  stream: bare(StreamRequestSchema, { idOf: ({ id }) => id, idPattern: ID }),
};

/** All kinds. */
export const KINDS: readonly Kind[] = Object.keys(kinds).filter(isKind);

/** Whether `word` is a kind. */
export function isKind(word: string): word is Kind {
  return Object.hasOwn(kinds, word);
}

/** The id under which a version of `parentId` is stored: the version is padded so that keys sort by it. */
export function versionId(parentId: string, version: bigint): string {
  return `${parentId}/${String(version).padStart(10, "0")}`;
}

type WithMeta = Message & { readonly id: string; meta?: Meta | undefined };

function withMeta<T extends WithMeta>(
  schema: GenMessage<T>,
  options: { readonly idPattern?: RegExp; readonly nameOf?: (object: T) => string },
): KindInfo<T> {
  return {
    decode(value, modRevision) {
      // The generic schema's message is T; the library's conditional type cannot say so.
      const object = fromBinary(schema, value) as T;
      object.meta ??= create(MetaSchema);
      object.meta.version = BigInt(modRevision);
      return object;
    },
    encode(object, { createdAt, updatedAt }) {
      const stamped = { ...object, meta: create(MetaSchema, { createdAt, updatedAt }) };
      return toBinary(schema, stamped as MessageShape<GenMessage<T>>);
    },
    idOf: ({ id }) => id,
    metaOf: ({ meta }) => meta,
    hasMeta: true,
    idPattern: options.idPattern ?? ID,
    namesUnique: options.nameOf !== undefined,
    nameOf: (object) => options.nameOf?.(object),
  };
}

function bare<T extends Message>(
  schema: GenMessage<T>,
  options: { readonly idOf: (object: T) => string; readonly idPattern: RegExp },
): KindInfo<T> {
  return {
    decode: (value) => fromBinary(schema, value) as T,
    encode: (object) => toBinary(schema, object as MessageShape<GenMessage<T>>),
    metaOf: () => undefined,
    hasMeta: false,
    namesUnique: false,
    nameOf: () => undefined,
    ...options,
  };
}
