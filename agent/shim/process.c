/* The end of a plan: the process's credentials, its filter, its program; and the small init that may stay above it. */
#include "shim.h"
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

/*
 * Standard input becomes the container's own /dev/null, never the host's, whose inode a container's root could chmod.
 * Without one it stays the empty pipe that it is. All three are handed to the user, so that /dev/stdout can be opened.
 */
static void hand_over_stdio(uid_t uid, gid_t gid) {
  struct stat status;
  int fd = keeps_input ? -1 : open_in_root("/dev/null", O_RDONLY | O_NONBLOCK | O_NOCTTY);
  if (fd >= 0 && fstat(fd, &status) == 0 && S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 3)) dup2(fd, 0);
  if (fd >= 0) close(fd);
  for (fd = 0; fd < 3; fd++)
    if (fstat(fd, &status) == 0 && S_ISFIFO(status.st_mode) && fchown(fd, uid, gid) < 0) continue;
    else if (isatty(fd) && fchown(fd, uid, (gid_t)-1) < 0) continue; /* its group stays tty */
}

int op_set_credentials(struct reader *reader) {
  gid_t groups[64];
  uint32_t uid = get_u32(reader), gid = get_u32(reader), mask = get_u32(reader);
  uint64_t bounding = get_u64(reader), effective = get_u64(reader), permitted = get_u64(reader);
  uint64_t inheritable = get_u64(reader), ambient = get_u64(reader);
  uint32_t count = get_u32(reader);
  if (count > sizeof groups / sizeof *groups) return -E2BIG;
  for (uint32_t index = 0; index < count; index++) groups[index] = get_u32(reader);
  if (reader->bad) return -EBADMSG;

  hand_over_stdio(uid, gid);
  for (unsigned long capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
    if (capability > 63 || !(bounding >> capability & 1)) TRY(CHECK(prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)));
  TRY(CHECK(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)));
  TRY(CHECK(syscall(SYS_setgroups, count, groups)));
  TRY(CHECK(syscall(SYS_setresgid, gid, gid, gid)));
  TRY(CHECK(syscall(SYS_setresuid, uid, uid, uid)));
  TRY(CHECK(prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0)));
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct sets[2] = {
      {(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable},
      {(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32)}};
  TRY(CHECK(syscall(SYS_capset, &header, sets)));
  TRY(CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)));
  for (unsigned long capability = 0; capability < 64; capability++)
    if (ambient >> capability & 1) TRY(CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)));
  umask(mask);
  /* A change of credentials clears it (prctl(2)): without it a container would outlive a killed supervisor. */
  TRY(CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)));
  char gone;
  if (recv(sync_fd, &gone, sizeof gone, MSG_PEEK | MSG_DONTWAIT) == 0) _exit(127); /* it was killed meanwhile */
  return 0;
}

int op_no_new_privileges(struct reader *reader) {
  (void)reader;
  return CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

int op_load_seccomp(struct reader *reader) {
  uint32_t flags = get_u32(reader), length;
  const uint8_t *filter = get_bytes(reader, &length);
  if (reader->bad || length % sizeof(struct sock_filter) || length / sizeof(struct sock_filter) > BPF_MAXINSNS)
    return -EBADMSG;
  struct sock_fprog program = {(unsigned short)(length / sizeof(struct sock_filter)), (struct sock_filter *)filter};
  return CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program));
}

/* The process above the program: reaps every orphan, passes every signal on, ends as the program ends. */
static void reap(pid_t program) {
  sigset_t all;
  sigfillset(&all);
  prctl(PR_SET_NAME, "swarm-init", 0, 0, 0);
  while (true) {
    int status, number = sigwaitinfo(&all, NULL);
    if (number > 0 && number != SIGCHLD) kill(program, number);
    for (pid_t ended; (ended = waitpid(-1, &status, WNOHANG)) > 0;)
      if (ended == program) _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
  }
}

/*
 * Goes on in a child, as an exec must: only children enter the pid namespace that it joined. So nothing of an exec is seen
 * in the container before it has the container's root and rights: through its /proc/PID/root lay the host.
 */
static int start_init(void) {
  sigset_t all, none = {0};
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, NULL);
  pid_t program = TRY(CHECK(fork()));
  if (program > 0) {
    /* It never executes anything, so nothing of it is closed by that. Nobody shall wait for an exec's streams because of it. */
    syscall(SYS_close_range, container_pidfd >= 0 ? 0u : 3u, ~0u, 0u);
    reap(program);
  }
  TRY(CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)));
  if (isatty(0)) TRY(CHECK(setpgid(0, 0) ?: tcsetpgrp(0, getpid()))); /* in the foreground of what stands above it */
  else if (container_pidfd < 0) setsid(); /* an exec is killed as one process group */
  return CHECK(sigprocmask(SIG_SETMASK, &none, NULL));
}

/* execvp(3) over the container's PATH, with the errno that tells "not found" from "not allowed". */
static int execute(char **args, char **env) {
  const char *path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  int error = ENOENT;
  char candidate[4096];
  if (!*args || !**args) return -ENOENT;
  if (strchr(*args, '/')) return CHECK(execve(*args, args, env));
  for (char **entry = env; *entry; entry++)
    if (strncmp(*entry, "PATH=", 5) == 0) path = *entry + 5;
  for (size_t name = strlen(*args); *path; path += *path == ':') {
    size_t length = strcspn(path, ":");
    if (length && length + name + 2 <= sizeof candidate) {
      memcpy(candidate, path, length);
      candidate[length] = '/';
      memcpy(candidate + length + 1, *args, name + 1);
      execve(candidate, args, env);
      if (errno == EACCES) error = EACCES;
      else if (errno != ENOENT && errno != ENOTDIR) return -errno;
    }
    path += length;
  }
  return -error;
}

/* Gives the list's strings as a NULL-ended array. */
static char **get_strings(struct reader *reader) {
  uint32_t count = get_u32(reader);
  if (reader->bad || count > (size_t)(reader->end - reader->at)) return NULL;
  char **strings = map_memory((count + 1ul) * sizeof *strings);
  for (uint32_t index = 0; strings && index < count; index++) strings[index] = (char *)get_string(reader);
  return strings;
}

int op_exec(struct reader *reader) {
  bool init = get_u32(reader);
  char **args = get_strings(reader), **env = get_strings(reader);
  if (reader->bad || !args || !env) return -EBADMSG;
  if (init || container_pidfd >= 0) TRY(start_init());
  return execute(args, env);
}
