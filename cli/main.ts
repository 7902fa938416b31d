/** The entry of swarmctl: the process around `run`. */
import { main } from "./process.ts";

void main();
