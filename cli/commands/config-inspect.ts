import { inspectContentCommand } from "../content-commands.ts";

export const command = inspectContentCommand("config");
