/** The entry of swarmctl: the process around `run`. */
import { enableCompileCache } from "node:module";

enableCompileCache();

const { main } = await import("./process.ts");
await main();
