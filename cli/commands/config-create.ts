import { createContentCommand } from "../content-commands.ts";

export const command = createContentCommand("config");
