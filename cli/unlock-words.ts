/** What is said with an unlock key. Pure. */
export function unlockInstructions(key: string): string {
  return (
    "To unlock a swarm manager after it restarts, run the `swarmctl swarm unlock`\n" +
    `command and provide the following key:\n\n    ${key}\n\n` +
    "Please remember to store this key in a password manager, since without it you\n" +
    "will not be able to restart the manager.\n"
  );
}
