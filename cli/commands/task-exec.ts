import { execCommand } from "../exec.ts";

export const command = execCommand("task exec [OPTIONS] TASK|SERVICE COMMAND [ARG...]");
