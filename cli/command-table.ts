/** Every command, by its words. Only the module of the command that runs is loaded. */
import type { Command } from "./command.ts";

/** A row of the table. */
export interface CommandEntry {
  readonly summary: string;
  load(): Promise<{ readonly command: Command }>;
}

export const COMMANDS: Readonly<Record<string, CommandEntry>> = {
  "service create": { summary: "Create a new service", load: () => import("./commands/service-create.ts") },
  "service exec": { summary: "Execute a command in a running task", load: () => import("./commands/service-exec.ts") },
  "service inspect": {
    summary: "Display detailed information on one or more services",
    load: () => import("./commands/service-inspect.ts"),
  },
  "service logs": { summary: "Fetch the logs of a service or task", load: () => import("./commands/service-logs.ts") },
  "service ls": { summary: "List services", load: () => import("./commands/service-ls.ts") },
  "service ps": { summary: "List the tasks of one or more services", load: () => import("./commands/service-ps.ts") },
  "service history": {
    summary: "List the versions of a service's spec and what changed",
    load: () => import("./commands/service-history.ts"),
  },
  "service restart": {
    summary: "Replace every task of one or more services",
    load: () => import("./commands/service-restart.ts"),
  },
  "service rm": { summary: "Remove one or more services", load: () => import("./commands/service-rm.ts") },
  "service rollback": {
    summary: "Revert changes to a service's configuration",
    load: () => import("./commands/service-rollback.ts"),
  },
  "service scale": {
    summary: "Scale one or multiple replicated services",
    load: () => import("./commands/service-scale.ts"),
  },
  "service start": {
    summary: "Run the tasks of stopped services again",
    load: () => import("./commands/service-start.ts"),
  },
  "service stats": {
    summary: "Display a live stream of what the tasks of services use",
    load: () => import("./commands/service-stats.ts"),
  },
  "service stop": {
    summary: "End the tasks of one or more services, which stay",
    load: () => import("./commands/service-stop.ts"),
  },
  "service update": { summary: "Update a service", load: () => import("./commands/service-update.ts") },
  "task cp": {
    summary: "Copy files or folders between a task and this machine",
    load: () => import("./commands/task-cp.ts"),
  },
  "task exec": { summary: "Execute a command in a running task", load: () => import("./commands/task-exec.ts") },
  "task logs": { summary: "Fetch the logs of one or more tasks", load: () => import("./commands/task-logs.ts") },
  "task stats": {
    summary: "Display a live stream of what tasks use",
    load: () => import("./commands/task-stats.ts"),
  },
  "node inspect": {
    summary: "Display detailed information on one or more nodes",
    load: () => import("./commands/node-inspect.ts"),
  },
  "node ls": { summary: "List nodes in the swarm", load: () => import("./commands/node-ls.ts") },
  "node ps": { summary: "List tasks running on one or more nodes", load: () => import("./commands/node-ps.ts") },
  "node promote": {
    summary: "Promote one or more nodes to manager in the swarm",
    load: () => import("./commands/node-promote.ts"),
  },
  "node demote": {
    summary: "Demote one or more nodes from manager in the swarm",
    load: () => import("./commands/node-demote.ts"),
  },
  "node rm": { summary: "Remove one or more nodes from the swarm", load: () => import("./commands/node-rm.ts") },
  "node stats": {
    summary: "Display a live stream of what the tasks of nodes use",
    load: () => import("./commands/node-stats.ts"),
  },
  "node update": { summary: "Update a node", load: () => import("./commands/node-update.ts") },
  "stack config": {
    summary: "Outputs the final config file, after doing merges and interpolations",
    load: () => import("./commands/stack-config.ts"),
  },
  "network check": {
    summary: "Try from every node whether tasks, services and names are reached",
    load: () => import("./commands/network-check.ts"),
  },
  "network connect": {
    summary: "Attach a service to a network: its tasks are replaced, as its update policy says",
    load: () => import("./commands/network-connect.ts"),
  },
  "network create": {
    summary: "Create a network that spans the nodes",
    load: () => import("./commands/network-create.ts"),
  },
  "network disconnect": {
    summary: "Take a service off a network: its tasks are replaced, as its update policy says",
    load: () => import("./commands/network-disconnect.ts"),
  },
  "network inspect": {
    summary: "Display a network's subnets, and with -v the services, tasks and nodes on it",
    load: () => import("./commands/network-inspect.ts"),
  },
  "network ls": { summary: "List networks", load: () => import("./commands/network-ls.ts") },
  "network prune": { summary: "Remove all unused networks", load: () => import("./commands/network-prune.ts") },
  "network rm": { summary: "Remove one or more networks", load: () => import("./commands/network-rm.ts") },
  "volume create": {
    summary: "Create a volume; a node makes it when a task there mounts it",
    load: () => import("./commands/volume-create.ts"),
  },
  "volume ls": { summary: "List the volumes of all nodes", load: () => import("./commands/volume-ls.ts") },
  "volume inspect": {
    summary: "Display which nodes have a volume, since when, and its size there",
    load: () => import("./commands/volume-inspect.ts"),
  },
  "volume prune": {
    summary: "Remove unused volumes, with their data on every node",
    load: () => import("./commands/volume-prune.ts"),
  },
  "volume rm": {
    summary: "Remove one or more volumes, with their data on every node",
    load: () => import("./commands/volume-rm.ts"),
  },
  "config create": {
    summary: "Create a config from a file or STDIN",
    load: () => import("./commands/config-create.ts"),
  },
  "config inspect": {
    summary: "Display detailed information on one or more configs",
    load: () => import("./commands/config-inspect.ts"),
  },
  "config ls": { summary: "List configs", load: () => import("./commands/config-ls.ts") },
  "config rm": { summary: "Remove one or more configs", load: () => import("./commands/config-rm.ts") },
  "config update": {
    summary: "Change a config's content or labels; services that use it follow",
    load: () => import("./commands/config-update.ts"),
  },
  "secret create": {
    summary: "Create a secret from a file or STDIN",
    load: () => import("./commands/secret-create.ts"),
  },
  "secret inspect": {
    summary: "Display detailed information on one or more secrets",
    load: () => import("./commands/secret-inspect.ts"),
  },
  "secret ls": { summary: "List secrets", load: () => import("./commands/secret-ls.ts") },
  "secret rm": { summary: "Remove one or more secrets", load: () => import("./commands/secret-rm.ts") },
  "secret update": {
    summary: "Change a secret's content or labels; services that use it follow",
    load: () => import("./commands/secret-update.ts"),
  },
  "stack deploy": {
    summary: "Deploy a new stack or update an existing stack",
    load: () => import("./commands/stack-deploy.ts"),
  },
  "stack history": {
    summary: "Show the revisions of a stack, newest first",
    load: () => import("./commands/stack-history.ts"),
  },
  "stack logs": {
    summary: "Fetch the logs of all services in the stack",
    load: () => import("./commands/stack-logs.ts"),
  },
  "stack ls": { summary: "List stacks", load: () => import("./commands/stack-ls.ts") },
  "stack plan": {
    summary: "Show what stack deploy would change; exit code 0 nothing, 4 something",
    load: () => import("./commands/stack-plan.ts"),
  },
  "stack ps": { summary: "List the tasks in the stack", load: () => import("./commands/stack-ps.ts") },
  "stack rm": {
    summary: "Remove one or more stacks; their volumes stay",
    load: () => import("./commands/stack-rm.ts"),
  },
  "stack rollback": {
    summary: "Take a whole stack back to an earlier revision",
    load: () => import("./commands/stack-rollback.ts"),
  },
  "stack services": {
    summary: "List the services in the stack",
    load: () => import("./commands/stack-services.ts"),
  },
  "image load": {
    summary: "Load an image into the cluster from a tar archive or STDIN",
    load: () => import("./commands/image-load.ts"),
  },
  "image ls": { summary: "List the cluster's images", load: () => import("./commands/image-ls.ts") },
  "image rm": { summary: "Remove one or more images from the cluster", load: () => import("./commands/image-rm.ts") },
  "audit ls": {
    summary: "List who changed what, by the records of all managers",
    load: () => import("./commands/audit-ls.ts"),
  },
  completion: {
    summary: "Print a script that makes bash, zsh or fish complete swarmctl",
    load: () => import("./commands/completion.ts"),
  },
  "context create": { summary: "Create a context", load: () => import("./commands/context-create.ts") },
  "context export": {
    summary: "Export a context to a file or to STDOUT",
    load: () => import("./commands/context-export.ts"),
  },
  "context import": { summary: "Import a context from a file", load: () => import("./commands/context-import.ts") },
  "context inspect": {
    summary: "Display detailed information on one or more contexts",
    load: () => import("./commands/context-inspect.ts"),
  },
  "context ls": { summary: "List contexts", load: () => import("./commands/context-ls.ts") },
  "context rm": { summary: "Remove one or more contexts", load: () => import("./commands/context-rm.ts") },
  "context show": {
    summary: "Print the name of the current context",
    load: () => import("./commands/context-show.ts"),
  },
  "context update": { summary: "Update a context", load: () => import("./commands/context-update.ts") },
  "context use": { summary: "Set the current context", load: () => import("./commands/context-use.ts") },
  "swarm ca": { summary: "Display and rotate the root CA", load: () => import("./commands/swarm-ca.ts") },
  "swarm init": {
    summary: "Initialize a swarm: this host becomes its first manager and node",
    load: () => import("./commands/swarm-init.ts"),
  },
  "swarm join": { summary: "Join a swarm as a node and/or manager", load: () => import("./commands/swarm-join.ts") },
  "swarm leave": {
    summary: "Leave the swarm: this host's tasks end, and it forgets the cluster",
    load: () => import("./commands/swarm-leave.ts"),
  },
  "swarm join-token": { summary: "Manage join tokens", load: () => import("./commands/swarm-join-token.ts") },
  "swarm unlock": {
    summary: "Unlock this host's manager with the key from STDIN",
    load: () => import("./commands/swarm-unlock.ts"),
  },
  "swarm unlock-key": { summary: "Manage the unlock key", load: () => import("./commands/swarm-unlock-key.ts") },
  "swarm update": { summary: "Update the swarm", load: () => import("./commands/swarm-update.ts") },
  "user create": {
    summary: "Create a user, and write an invite for a swarmctl elsewhere",
    load: () => import("./commands/user-create.ts"),
  },
  "user inspect": {
    summary: "Display detailed information on one or more users",
    load: () => import("./commands/user-inspect.ts"),
  },
  "user ls": {
    summary: "List users, and when their certificates end",
    load: () => import("./commands/user-ls.ts"),
  },
  "user rm": {
    summary: "Remove one or more users: their certificates are refused at once",
    load: () => import("./commands/user-rm.ts"),
  },
  "wait node": { summary: "Block until a node is as wanted", load: () => import("./commands/wait-node.ts") },
  "wait service": { summary: "Block until a service is as wanted", load: () => import("./commands/wait-service.ts") },
  "wait stack": { summary: "Block until a stack is as wanted", load: () => import("./commands/wait-stack.ts") },
  check: {
    summary: "Examine this host: whether it can be a node, and how to mend what stands in the way",
    load: () => import("./commands/check.ts"),
  },
  info: { summary: "Display cluster-wide information", load: () => import("./commands/info.ts") },
  version: { summary: "Show the version information", load: () => import("./commands/version.ts") },
};

/** Docker's other spellings. */
export const ALIASES: Readonly<Record<string, string>> = {
  "audit list": "audit ls",
  "secret list": "secret ls",
  "secret remove": "secret rm",
  "user list": "user ls",
  "user remove": "user rm",
  "network list": "network ls",
  "network remove": "network rm",
  "volume list": "volume ls",
  "volume remove": "volume rm",
  "config list": "config ls",
  "config remove": "config rm",
  "service list": "service ls",
  "service remove": "service rm",
  "node list": "node ls",
  "node remove": "node rm",
  "image list": "image ls",
  "image remove": "image rm",
  "context list": "context ls",
  "context remove": "context rm",
  images: "image ls",
  "stack down": "stack rm",
  "stack list": "stack ls",
  "stack remove": "stack rm",
  "stack up": "stack deploy",
  "system info": "info",
  load: "image load",
  rmi: "image rm",
};

/** What each group of commands is about. */
export const GROUPS: Readonly<Record<string, string>> = {
  service: "Manage services",
  task: "Look at tasks",
  node: "Manage nodes",
  stack: "Manage stacks",
  secret: "Manage secrets",
  config: "Manage configs",
  network: "Manage networks",
  volume: "Manage volumes",
  image: "Manage the cluster's images",
  context: "Manage contexts",
  swarm: "Manage the swarm",
  audit: "Look at who changed what",
  user: "Manage users: who may use swarmctl from elsewhere, and for what",
  wait: "Block until something is as wanted",
};
