import { roleCommand } from "../node-role.ts";

export const command = roleCommand("demote");
