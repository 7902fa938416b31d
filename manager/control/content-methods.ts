/** The calls of the Control API that are about secrets and configs. */
import type { ServiceImplementation } from "../../common/rpc/service.ts";
import type { Control } from "../../proto/gen/swarm/v1/control_pb.js";
import { createContent, listConfigs, listSecrets, removeContent, updateContent } from "./contents.ts";
import type { ControlDependencies } from "./dependencies.ts";
import { requireId } from "./references.ts";

type Method = "create" | "update" | "remove";
type ContentMethods = Pick<
  ServiceImplementation<typeof Control>,
  `${Method}${"Secret" | "Config"}` | "listSecrets" | "listConfigs"
>;

export function contentMethods(dependencies: ControlDependencies): ContentMethods {
  const { view } = dependencies.store;
  const secretOf = (id: string) => ({ secret: requireId(view.secrets, "secret", id) });
  const configOf = (id: string) => ({ config: requireId(view.configs, "config", id) });
  return {
    createSecret: async (request, { signal }) => secretOf(await createContent(dependencies, "secret", request, signal)),
    updateSecret: async (request, { signal }) => {
      const serviceIds = await updateContent(dependencies, "secret", request, signal);
      return { ...secretOf(request.id), serviceIds: [...serviceIds] };
    },
    removeSecret: async ({ id }, { signal }) => {
      await removeContent(dependencies, "secret", id, signal);
      return {};
    },
    listSecrets: async ({ references }) => ({ secrets: listSecrets(dependencies, references) }),
    createConfig: async (request, { signal }) => configOf(await createContent(dependencies, "config", request, signal)),
    updateConfig: async (request, { signal }) => {
      const serviceIds = await updateContent(dependencies, "config", request, signal);
      return { ...configOf(request.id), serviceIds: [...serviceIds] };
    },
    removeConfig: async ({ id }, { signal }) => {
      await removeContent(dependencies, "config", id, signal);
      return {};
    },
    listConfigs: async ({ references, withData }) => ({ configs: listConfigs(dependencies, references, withData) }),
  };
}
