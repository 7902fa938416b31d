import { execCommand } from "../exec.ts";

export const command = execCommand("service exec [OPTIONS] SERVICE|TASK COMMAND [ARG...]");
