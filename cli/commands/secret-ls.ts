import { listContentCommand } from "../content-commands.ts";

export const command = listContentCommand("secret");
