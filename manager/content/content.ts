/**
 * Gives agents the images that were loaded into the cluster. Any manager answers for all: a blob that only another one
 * has is fetched from there, checked, kept, and passed on while it comes.
 */
import { type Clock, abortReason } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { Logger } from "../../common/base/logger.ts";
import { type CallContext, createClient, type ServiceImplementation, type Transport } from "../../common/rpc/service.ts";
import {
  Content as ContentService,
  type GetBlobRequest,
  type ResolveImageRequest,
} from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import type { Image, ManagerInfo } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { Platform } from "../../proto/gen/swarm/v1/types_pb.js";
import type { View } from "../store/view.ts";
import type { BlobStore } from "./blob-store.ts";
