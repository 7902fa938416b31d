/** A program for the kill -9 test: pulls one new image after another until it is killed. Arguments: directory, shim. */
import { systemClock } from "../../common/base/clock.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { systemRandom } from "../../common/base/random.ts";
import { buildParts } from "../../test/images.ts";
import { directory, file } from "../../test/tar.ts";
import { hostPlatform, ImageStore } from "./store.ts";
import { MemorySource, NEVER, reference } from "./test-store.ts";

const [images = "", shimPath = ""] = process.argv.slice(2);
const store = await ImageStore.open({
  directory: images,
  shimPath,
  platform: hostPlatform(),
  clock: systemClock,
  random: systemRandom,
  log: silentLogger,
});
for (let round = 0; ; round++) {
  const files = Array.from({ length: 200 }, (_, number) =>
    file(`files/${number}`, `${process.pid} ${round} `.repeat(500)),
  );
  const image = buildParts({ name: "a:1", layers: [{ files: [directory("files"), ...files] }] });
  process.stdout.write(".");
  await store.ensureImage(reference("a:1"), new MemorySource().add("a:1", image), NEVER);
}
