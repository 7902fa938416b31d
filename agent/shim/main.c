/*
 * `swarm-shim runner` serves the agent; `swarm-shim session` runs one command with a person at it (session.c);
 * `swarm-shim unpack` unpacks a layer (unpack.c).
 */
#include "shim.h"
#include <stdio.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

/*
 * CVE-2019-5736: a container must not reach the host's file through /proc/PID/exe. The program goes on from a sealed
 * copy in memory; one that has seals already is that copy.
 */
static int seal(char **argv, char **env) {
  struct stat status;
  int all = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  cleanup_close int self = TRY(CHECK(open("/proc/self/exe", O_RDONLY | O_CLOEXEC)));
  if (fcntl(self, F_GET_SEALS) == all) return 0;
  TRY(CHECK(fstat(self, &status)));
  int copy = CHECK(memfd_create("swarm-shim", MFD_CLOEXEC | MFD_ALLOW_SEALING | 0x10 /* MFD_EXEC */));
  if (copy == -EINVAL) copy = CHECK(memfd_create("swarm-shim", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  TRY(copy);
  for (off_t left = status.st_size; left > 0;) left -= TRY(CHECK(sendfile(copy, self, NULL, (size_t)left))) ?: left;
  TRY(CHECK(fcntl(copy, F_ADD_SEALS, all)));
  return CHECK(fexecve(copy, argv, env));
}

int main(int argc, char **argv, char **env) {
  if (argc >= 2 && strcmp(argv[1], "unpack") == 0) return unpack_main(argc, argv);
  bool session = argc == 2 && strcmp(argv[1], "session") == 0;
  if (!session && (argc != 2 || strcmp(argv[1], "runner") != 0)) {
    dprintf(2, "usage: swarm-shim runner|session|unpack\n");
    return 2;
  }
  int result = seal(argv, env);
  if (result == 0) result = session ? session_main() : runner_main();
  if (result < 0) dprintf(2, "swarm-shim: %s\n", strerror(-result));
  return result < 0;
}
