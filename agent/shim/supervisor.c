/*
 * One supervisor per container: a process of about 50 KiB that outlives the runner and the agent.
 *
 *   runner            supervisor                          first process
 *     | START --fork--->|                                    |
 *     |                 | control.sock, log, host ops        |
 *     |                 | clone3 into new namespaces ------->|
 *     |                 | joins it to its cgroups (v1)       |
 *     |                 |------------- go ------------------>|
 *     |                 |                                    | container ops
 *     |                 |<------------ READY ----------------| at await-start, and waits
 *     |<-- OK {pids} ---|            or FAILED {index, errno}  and ends: all is undone
 *   agent               |                                    |
 *     | START --------->|------------ start ---------------->| last ops, exec
 *     |<-- OK ----------|<------- end of file (exec) --------|
 *     |                 |            or FAILED {index, errno}
 *     |<-- EXITED ------|<------- pidfd becomes readable ----| exits
 *                       | drains the log, writes the exit record, ends
 *
 * An exec climbs the same ladder from "clone3" on, without await-start, and enters the pid namespace last of all.
 */
#include "shim.h"
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

struct cgroup cgroup;

void get_cgroup(struct reader *plan) {
  cgroup.join = get_reader(plan);
  cgroup.into = get_string(plan);
  cgroup.kill = get_string(plan);
  cgroup.freezer = get_string(plan);
  cgroup.procs = get_string(plan);
  cgroup.oom = get_string(plan);
}

static int join_cgroups(pid_t pid) {
  char number[16];
  struct reader join = cgroup.join;
  snprintf(number, sizeof number, "%d", pid);
  while (join.at < join.end && !join.bad) TRY(write_file(get_string(&join), number));
  return join.bad ? -EBADMSG : 0;
}

/*
 * Only what operations use stays, at numbers of its own; all else of the supervisor (its sockets, the runner's pipe) is
 * closed here and not left to exec: a container may wait for its start for long.
 */
static int keep_descriptors(void) {
  int *kept[] = {&sync_fd, &host_netlink_fd, &container_pidfd};
  for (int index = 0; index < 3; index++)
    if (*kept[index] >= 0) *kept[index] = TRY(CHECK(dup3(*kept[index], HOST_NETNS_FD + 1 + index, O_CLOEXEC)));
  TRY(CHECK(syscall(SYS_close_range, 3u, HOST_NETNS_FD - 1u, 0u)));
  return CHECK(syscall(SYS_close_range, HOST_NETNS_FD + 4u, ~0u, 0u));
}

static void run_child(struct reader ops, const int stdio[3]) __attribute__((noreturn));
static void run_child(struct reader ops, const int stdio[3]) {
  struct failure failure = {0};
  uint32_t go;
  sigset_t none = {0};
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  signal(SIGPIPE, SIG_DFL);
  sigprocmask(SIG_SETMASK, &none, NULL);
  setsid();
  umask(0);
  for (int fd = 0; fd < 3; fd++) dup2(stdio[fd], fd);
  /* The supervisor died before PDEATHSIG was set, or could not join the cgroup. */
  if (recv(sync_fd, &go, sizeof go, 0) <= 0) _exit(127);
  int result = keep_descriptors();
  if (result >= 0) result = run_ops(&ops, &failure);
  struct sync_message failed = {SYNC_FAILED, failure.index, (uint32_t)-result};
  send(sync_fd, &failed, sizeof failed, MSG_NOSIGNAL);
  _exit(result == -ENOENT ? 127 : 126);
}

int spawn(uint32_t flags, struct reader ops, struct process *process, struct failure *failure) {
  int pipes[3][2] = {{-1, -1}, {-1, -1}, {-1, -1}}; /* stdin, stdout, stderr: read end, write end */
  int ends[2] = {-1, -1}, pidfd = -1, result = 0;
  failure->stage = STAGE_CLONE;
  cleanup_close int into = *cgroup.into ? TRY(CHECK(open(cgroup.into, O_PATH | O_DIRECTORY | O_CLOEXEC))) : -1;
  for (int index = 0; index < 3 && result == 0; index++) result = CHECK(pipe2(pipes[index], O_CLOEXEC));
  if (result == 0) result = CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
  struct clone_args args = {.flags = flags | CLONE_PIDFD | (into >= 0 ? CLONE_INTO_CGROUP : 0),
                            .pidfd = (uintptr_t)&pidfd, .exit_signal = SIGCHLD, .cgroup = (uint64_t)into};
  pid_t pid = -1;
  if (result == 0) result = pid = CHECK(syscall(SYS_clone3, &args, sizeof args));
  if (pid == 0) {
    sync_fd = ends[1];
    close(ends[0]); /* with it open, the supervisor's end would never show here */
    run_child(ops, (int[]){pipes[0][0], pipes[1][1], pipes[2][1]});
  }
  close_fd(&pipes[0][0]), close_fd(&pipes[1][1]), close_fd(&pipes[2][1]), close_fd(&ends[1]);
  *process = (struct process){pidfd, ends[0], pipes[0][1], {pipes[1][0], pipes[2][0]}, pid};
  if (pid > 0) result = join_cgroups(pid);
  if (result >= 0) result = CHECK(send(ends[0], &pid, sizeof pid, MSG_NOSIGNAL));
  if (result >= 0) {
    for (int index = 0; index < 2; index++) fcntl(process->output[index], F_SETFL, O_NONBLOCK);
    return 0;
  }
  close_fd(&pidfd), close_fd(&ends[0]), close_fd(&pipes[0][1]), close_fd(&pipes[1][0]), close_fd(&pipes[2][0]);
  if (pid > 0) waitpid(pid, NULL, 0);
  process->pid = -1;
  return result;
}

static int read_text(const char *path, char *text, size_t size) {
  cleanup_close int fd = TRY(CHECK(open(path, O_RDONLY | O_CLOEXEC)));
  int length = TRY(CHECK(read(fd, text, size - 1)));
  text[length] = 0;
  return length;
}

/* Sends a signal to every process of the cgroup. Killing goes without a race: cgroup.kill (v2) or frozen (v1). */
int signal_all(int number) {
  char text[8192];
  if (number == SIGKILL && *cgroup.kill) return write_file(cgroup.kill, "1");
  bool freeze = number == SIGKILL && *cgroup.freezer;
  if (!*cgroup.procs) return -EOPNOTSUPP;
  cleanup_close int fd = TRY(CHECK(open(cgroup.procs, O_RDONLY | O_CLOEXEC)));
  for (int attempt = 0; freeze && attempt < 100; attempt++) {
    TRY(write_file(cgroup.freezer, "FROZEN"));
    if (read_text(cgroup.freezer, text, sizeof text) > 0 && strncmp(text, "FROZEN", 6) == 0) break;
    usleep(1000);
  }
  pid_t pid = 0;
  for (ssize_t length; (length = read(fd, text, sizeof text)) > 0;)
    for (char *at = text; at < text + length; at++) {
      if (*at >= '0' && *at <= '9') pid = pid * 10 + (*at - '0');
      else if (pid > 0) kill(pid, number), pid = 0;
    }
  return freeze ? write_file(cgroup.freezer, "THAWED") : 0;
}

bool oom_killed(void) {
  char text[1024];
  if (!*cgroup.oom || read_text(cgroup.oom, text, sizeof text) <= 0) return false;
  const char *line = strstr(text, "oom_kill ");
  return line && line[9] != '0';
}

/*
 * The terminal takes the place of the pipes. Its near end is held as well: while nobody in the container had it open, its
 * far end would say that it is over, though a service manager, say, opens /dev/console for each line that it writes.
 */
static int take_terminal(struct process *container, int terminal) {
  close(container->input), close(container->output[0]), close(container->output[1]);
  container->output[0] = terminal;
  container->output[1] = -1;
  return container->input = CHECK(ioctl(terminal, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
}

/* Waits until the first process stands ready, or says which operation failed. */
static int await_ready(struct process *container, struct failure *failure) {
  struct sync_message message = {0};
  int terminal, length = TRY(receive_sync(container->sync_fd, &message, &terminal, 0));
  if (length > 0 && message.kind == SYNC_TERMINAL) {
    TRY(take_terminal(container, terminal));
    length = TRY(receive_sync(container->sync_fd, &message, &terminal, 0));
  }
  if (length == 0) return -ECHILD; /* killed from outside, by the OOM killer say */
  failure->stage = STAGE_CONTAINER;
  failure->index = message.index;
  return message.kind == SYNC_READY ? 0 : -(int)message.error;
}

/* Everything up to READY; what follows in `plan` after the head, where it is left, is only needed until then. */
static int create(struct reader *plan, struct process *container, struct failure *failure) {
  const char *state_directory = get_string(plan);
  TRY(control_listen(state_directory));
  TRY(log_open(plan));
  uint32_t namespaces = get_u32(plan);
  get_cgroup(plan);
  bool open_input = get_u32(plan);
  struct reader lists = *plan;
  struct reader host = get_reader(&lists), ops = get_reader(&lists);
  if (lists.bad) return -EBADMSG;
  int netns = TRY(CHECK(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC)));
  TRY(CHECK(dup3(netns, HOST_NETNS_FD, O_CLOEXEC)));
  close(netns);
  host_netlink_fd = TRY(netlink_open(0 /* NETLINK_ROUTE */));
  failure->stage = STAGE_HOST;
  TRY(run_ops(&host, failure));
  keeps_input = open_input;
  TRY(spawn(namespaces, ops, container, failure));
  keeps_input = false; /* commands run in it read its /dev/null */
  TRY(await_ready(container, failure));
  if (!open_input) close(container->input), container->input = -1; /* its reader finds the end */
  close(host_netlink_fd);
  host_netlink_fd = -1;
  close(HOST_NETNS_FD);
  return 0;
}

void supervise(uint32_t id, struct reader plan, int answer_fd, int lock_fd) {
  struct failure failure = {.stage = STAGE_SUPERVISOR};
  struct process container = {.pidfd = -1, .pid = -1};
  setsid();
  umask(0);
  signal(SIGCHLD, SIG_DFL);
  prctl(PR_SET_NAME, "swarm-super", 0, 0, 0);
  int result = create(&plan, &container, &failure);
  uint32_t pids[2] = {(uint32_t)container.pid, (uint32_t)getpid()};
  /* A container that nobody could be told of is one that failed. */
  if (result >= 0) result = answer(answer_fd, lock_fd, id, ANSWER_OK, pids, sizeof pids);
  if (result < 0) {
    if (container.pid > 0) {
      kill(container.pid, SIGKILL);
      waitpid(container.pid, NULL, 0);
    }
    undo_directories();
    failure.error = (uint32_t)-result;
    control_unlink();
    answer(answer_fd, lock_fd, id, ANSWER_ERROR, &failure, sizeof failure);
    _exit(1);
  }
  close(answer_fd);
  close(lock_fd);
  /* The operations are done with: give their pages back. */
  uintptr_t page = ((uintptr_t)plan.at + 4095) & ~4095ul, end = ((uintptr_t)plan.end + 4095) & ~4095ul;
  if (end > page) munmap((void *)page, end - page);
  control_loop(&container);
}
