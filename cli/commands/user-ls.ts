import type { User } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { Command, Invocation } from "../command.ts";
import { LIST_FLAGS } from "../flags/list-flags.ts";
import { type ClusterAuthorities, readAuthorities } from "../output/cluster-authorities.ts";
import { type Listing, type Row, renderList } from "../output/format.ts";
import { expiryWords, userRoleName } from "../output/user-words.ts";

export const command: Command = {
  usage: "user ls [OPTIONS]",
  summary: "List users, and when their certificates end",
  flags: LIST_FLAGS,
  words: { min: 0, max: 0 },
  run,
};

const LISTING: Listing = {
  columns: { ID: "ID", Name: "NAME", Role: "ROLE", Stacks: "STACKS", Expires: "CERTIFICATE ENDS" },
  more: { Serial: "SERIAL" },
  key: "ID",
};

async function run({ flags, io, clock, connect }: Invocation): Promise<number> {
  const client = await connect();
  const [{ users }, ca] = await Promise.all([client.listUsers({}), client.getCa({})]);
  const authorities = readAuthorities(ca);
  const rows = users.map((user) => rowOf(user, clock.nowMs(), authorities));
  io.out(renderList(LISTING, rows, { format: flags.text("format"), quiet: flags.on("quiet") }));
  return 0;
}

function rowOf(user: User, nowMs: number, authorities: ClusterAuthorities): Row {
  return {
    ID: user.id,
    Name: user.name,
    Role: userRoleName(user),
    Stacks: user.stackPrefixes.length > 0 ? user.stackPrefixes.join(",") : "all",
    Expires: expiryWords(user, nowMs, authorities),
    Serial: user.serial,
  };
}
