import { updateContentCommand } from "../content-commands.ts";

export const command = updateContentCommand("secret");
