import { removeContentCommand } from "../content-commands.ts";

export const command = removeContentCommand("config");
