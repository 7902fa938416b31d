import type { Scope } from "../../common/base/scope.ts";
import { Mirror, type MirrorOptions } from "./mirror.ts";
import { Store } from "./store.ts";

/**
 * A store whose view is filled and followed by a mirror that runs in `scope`; a mirror that cannot go on (`data_loss`)
 * ends the scope.
 */
export async function openStore(options: MirrorOptions, scope: Scope): Promise<Store> {
  const mirror = new Mirror(options);
  scope.spawn("mirror", (signal) => mirror.run(signal));
  await mirror.ready(scope.signal);
  return new Store({ ...options, view: mirror.view });
}
