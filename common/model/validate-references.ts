/** Checks of a container's references to secrets and configs. Used by `validateServiceSpec` alone. */
import type { ContainerSpec, FileTarget } from "../../proto/gen/swarm/v1/types_pb.js";
import { lineProblem } from "./text.ts";
import { quoted } from "./units.ts";
import type { Problems } from "./validate-parts.ts";

/** SwarmKit's bound is the store's; more than this is a mistake. */
const REFERENCES_MAX = 256;
const TARGET_LENGTH_MAX = 4096;
/** As the kernel's ids go; 2^32 - 1 means "no change" to chown(2). */
const ID_MAX = 2 ** 31 - 1;

/** Names, targets, owners and modes; two files cannot have one place (SwarmKit: "conflicting target"). */
export function checkReferences(container: ContainerSpec, problems: Problems): void {
  const places = new Map<string, string>();
  const check = (field: string, name: string, id: string, file: FileTarget | undefined, folder: string) => {
    if (name === "" && id === "") problems.add(field, "a name must be given");
    checkTarget(field, file?.name ?? "", problems);
    for (const [part, text] of [
      ["uid", file?.uid ?? ""],
      ["gid", file?.gid ?? ""],
    ] as const) {
      if (text !== "" && !(/^\d{1,10}$/.test(text) && Number(text) <= ID_MAX)) {
        problems.add(`${field}.${part}`, `${quoted(text)} is not a number from 0 to ${ID_MAX}`);
      }
    }
    if ((file?.mode ?? 0) > 0o7777) problems.add(`${field}.mode`, "must be at most 7777 (octal)");
    const target = file?.name || name || id;
    const place = (target.startsWith("/") ? target : `${folder}/${target}`).replaceAll(/\/+/g, "/");
    const other = places.get(place);
    if (other !== undefined) {
      problems.add(
        field,
        `references ${quoted(other)} and ${quoted(name || id)} have a conflicting target: ${quoted(place)}`,
      );
    }
    places.set(place, name || id);
  };
  const { secrets, configs } = container;
  if (secrets.length + configs.length > REFERENCES_MAX) {
    problems.add("secrets", `at most ${REFERENCES_MAX} secrets and configs`);
    return;
  }
  secrets.forEach(({ secretName, secretId, file }, index) => {
    check(`secrets[${index}]`, secretName, secretId, file, "/run/secrets");
  });
  configs.forEach(({ configName, configId, file }, index) => {
    check(`configs[${index}]`, configName, configId, file, "");
  });
}

function checkTarget(field: string, target: string, problems: Problems): void {
  problems.text(`${field}.target`, lineProblem(target, TARGET_LENGTH_MAX));
  const names = target.split("/");
  if (names.includes("..") || names.includes(".")) problems.add(`${field}.target`, "must not contain . or ..");
  if (target.endsWith("/")) problems.add(`${field}.target`, "must name a file");
  const covered = ["/proc", "/sys", "/dev"].find((path) => target === path || target.startsWith(`${path}/`));
  if (covered !== undefined) problems.add(`${field}.target`, `must not lie in ${covered}`);
}
