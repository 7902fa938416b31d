import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../common/base/clock.ts";
import { silentLogger } from "../common/base/logger.ts";
import { systemRandom } from "../common/base/random.ts";
import { EmbeddedEtcd } from "../manager/store/embedded-etcd.ts";
import { EtcdKv } from "../manager/store/etcd-kv.ts";

/** A real etcd of a test's own, on a unix socket in a temporary directory; gone when disposed. */
export interface TestEtcd extends AsyncDisposable {
  readonly etcd: EmbeddedEtcd;
  readonly endpoint: string;
  /** A client of its own connection; disposed with the etcd. */
  connect(): EtcdKv;
}

/** Starts it; `quotaBytes` makes a store that is soon full. */
export async function startTestEtcd(options: { readonly quotaBytes?: number } = {}): Promise<TestEtcd> {
  const directory = await mkdtemp(join(tmpdir(), "swarm-etcd-"));
  const shared = { clock: systemClock, random: systemRandom, logger: silentLogger };
  const etcd = await EmbeddedEtcd.start({ directory, ...options, ...shared }, new AbortController().signal);
  const clients: EtcdKv[] = [];
  return {
    etcd,
    endpoint: etcd.endpoint,
    connect() {
      const kv = new EtcdKv({ endpoints: [etcd.endpoint], ...shared });
      clients.push(kv);
      return kv;
    },
    async [Symbol.asyncDispose]() {
      for (const client of clients) client[Symbol.dispose]();
      await etcd[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
