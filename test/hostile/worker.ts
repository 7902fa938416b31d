/** Runs one attack in a thread of its own, so that whoever measures the manager meanwhile has its own time. */
import { parentPort, workerData } from "node:worker_threads";
import { ATTACKS, type Attack, type Target } from "./attacks.ts";

const { attack, target } = workerData as { readonly attack: Attack; readonly target: Target };
parentPort?.postMessage(await ATTACKS[attack](target));
