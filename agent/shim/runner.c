/*
 * The agent's one long-lived helper: it reads requests from its standard input and forks for each, so that none waits
 * for another and no process as large as Node is ever forked. Answers come back in any order under the request's id;
 * a lock keeps their frames apart. End of input ends it; supervisors go on.
 */
#include "shim.h"
#include <linux/openat2.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum runner_request { REQUEST_CREATE = 1, REQUEST_NETLINK, REQUEST_READ_FILE, REQUEST_REMOVE_TREE };
enum volume_request { REQUEST_MOUNT = 5, REQUEST_BIND_BELOW, REQUEST_UNMOUNT, REQUEST_COPY_UP };
enum { REQUEST_CANCEL = 9 }; /* not forked for: it ends the child of another request, which may wait for a dead server */
enum { NETLINK_ANSWER_MAX = 4 << 20, READ_FILE_MAX = 16 << 20, DEPTH_MAX = 32 };
/* Requests at work and containers of this runner; more than a host holds. A further request is refused with EAGAIN. */
enum { CHILDREN_MAX = 8192 };
static struct child {
  pid_t pid;
  uint32_t id;
} children[CHILDREN_MAX];
static size_t child_count;

/* A lock by fcntl goes away with its holder, so a killed child blocks nobody. */
int answer(int fd, int lock_fd, uint32_t id, uint32_t kind, const void *payload, size_t length) {
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  while (fcntl(lock_fd, F_SETLKW, &lock) < 0 && errno == EINTR) continue;
  int result = send_frame(fd, id, kind, payload, length);
  lock.l_type = F_UNLCK;
  fcntl(lock_fd, F_SETLK, &lock);
  return result;
}

static int do_netlink(struct reader *request, uint8_t **payload) {
  uint32_t protocol = get_u32(request), length;
  const uint8_t *message = get_bytes(request, &length);
  if (request->bad) return -EBADMSG;
  if (!(*payload = map_memory(NETLINK_ANSWER_MAX))) return -ENOMEM;
  return netlink_transact((int)protocol, message, length, *payload, NETLINK_ANSWER_MAX);
}

/* Makes an image the root of paths: its one directory, or its layers as an overlay in a mount namespace of our own. */
int enter_image(const char *directory, struct reader overlay) {
  if (overlay.at == overlay.end) return root_fd = CHECK(open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC));
  static const uint8_t private[] = {0, 0, 4, 0}; /* MS_PRIVATE */
  TRY(CHECK(unshare(CLONE_NEWNS)));
  TRY(op_set_propagation(&(struct reader){private, private + sizeof private, false}));
  return op_mount_overlay(&overlay);
}

/* Reads a regular file of an image. */
static int do_read_file(struct reader *request, uint8_t **payload) {
  struct stat status;
  const char *directory = get_string(request), *path = get_string(request);
  uint32_t limit = get_u32(request);
  struct reader overlay = get_reader(request);
  if (request->bad) return -EBADMSG;
  if (limit > READ_FILE_MAX) return -E2BIG;
  TRY(enter_image(directory, overlay));
  /* Not blocking, and nothing but a regular file: the image may hold a FIFO or an endless device there. */
  cleanup_close int fd = TRY(open_in_root(path, O_RDONLY | O_NONBLOCK | O_NOCTTY));
  TRY(CHECK(fstat(fd, &status)));
  if (!S_ISREG(status.st_mode)) return -EINVAL;
  if (status.st_size > limit) return -EFBIG;
  if (!(*payload = map_memory(limit + 1ul))) return -ENOMEM;
  int used = 0;
  for (int count; (count = TRY(CHECK(read(fd, *payload + used, limit + 1ul - (size_t)used)))) > 0; used += count)
    if ((uint32_t)(used + count) > limit) return -EFBIG;
  return used;
}

/* Moves a directory that lies too deep up to `top`, under the first name that is free there. */
static int move_up(int directory, const char *name, int top) {
  static unsigned moved;
  char up[32];
  while (true) {
    snprintf(up, sizeof up, ".moved-%u", ++moved);
    int result = CHECK(renameat(directory, name, top, up));
    if (result != -ENOTEMPTY && result != -EEXIST && result != -ENOTDIR) return result;
  }
}

/* A mount point is refused (EXDEV), be it a bind mount of the same file system: what lies there is somebody else's. */
static int open_same_mount(int directory, const char *name) {
  struct open_how how = {
      .flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, .resolve = RESOLVE_NO_XDEV | RESOLVE_BENEATH};
  return CHECK(syscall(SYS_openat2, directory, name, &how, sizeof how));
}

static int empty_directory(int directory, int top, int depth);

static int remove_entry(int directory, const char *name, int top, int depth) {
  int result = CHECK(unlinkat(directory, name, 0));
  if (result != -EISDIR) return result == -ENOENT ? 0 : result;
  cleanup_close int child = TRY(open_same_mount(directory, name));
  if (depth == DEPTH_MAX) return move_up(directory, name, top);
  TRY(empty_directory(child, top, depth + 1));
  return CHECK(unlinkat(directory, name, AT_REMOVEDIR));
}

/* By descriptor, never through a link, never onto another mount. */
static int empty_directory(int directory, int top, int depth) {
  uint8_t buffer[4096] __attribute__((aligned(8)));
  bool found = true; /* removing while reading may skip entries: read again until a pass found none */
  while (found) {
    found = false;
    TRY(CHECK(lseek(directory, 0, SEEK_SET)));
    int length;
    while ((length = TRY(CHECK(syscall(SYS_getdents64, directory, buffer, sizeof buffer)))) > 0) {
      struct entry *entry;
      for (int at = 0; at < length; at += entry->length) {
        entry = (struct entry *)(buffer + at);
        if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0) continue;
        found = true;
        TRY(remove_entry(directory, entry->name, top, depth));
      }
    }
  }
  return 0;
}

static int do_remove_tree(struct reader *request) {
  const char *path = get_string(request);
  if (request->bad) return -EBADMSG;
  int opened = CHECK(open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (opened == -ENOENT) return 0;
  cleanup_close int top = TRY(opened);
  TRY(empty_directory(top, top, 0));
  return CHECK(rmdir(path));
}

static void serve(int answer_fd, int lock_fd, uint32_t id, uint32_t kind, struct reader request) {
  uint8_t *payload = NULL;
  int result = -ENOSYS;
  if (kind == REQUEST_CREATE) supervise(id, request, answer_fd, lock_fd);
  else if (kind == REQUEST_NETLINK) result = do_netlink(&request, &payload);
  else if (kind == REQUEST_READ_FILE) result = do_read_file(&request, &payload);
  else if (kind == REQUEST_REMOVE_TREE) result = do_remove_tree(&request);
  else if (kind == REQUEST_MOUNT) result = do_mount(&request);
  else if (kind == REQUEST_BIND_BELOW) result = do_bind_below(&request);
  else if (kind == REQUEST_UNMOUNT) result = do_unmount(&request);
  else if (kind == REQUEST_COPY_UP) result = do_copy_up(&request);
  struct failure failure = {STAGE_SUPERVISOR, 0, (uint32_t)-result};
  if (result < 0) answer(answer_fd, lock_fd, id, ANSWER_ERROR, &failure, sizeof failure);
  else answer(answer_fd, lock_fd, id, ANSWER_OK, payload, payload ? (size_t)result : 0);
}

/* A child that was killed may not have answered: it is answered for. One that had is asked for by nobody any more. */
static void reap_children(int answer_fd, int lock_fd) {
  struct failure failure = {STAGE_SUPERVISOR, 0, ECHILD};
  int status;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    struct child *child = children;
    while (child->pid != pid) child++;
    if (WIFSIGNALED(status)) answer(answer_fd, lock_fd, child->id, ANSWER_ERROR, &failure, sizeof failure);
    *child = children[--child_count];
  }
}

static void wake(int number) {
  (void)number;
}

static void cancel(uint32_t id) {
  for (size_t at = 0; at < child_count; at++)
    if (children[at].id == id) kill(children[at].pid, SIGKILL);
}

int runner_main(void) {
  setsid(); /* a terminal's Ctrl-C is the agent's business */
  for (int number = 1; number < 32; number++) signal(number, SIG_DFL); /* whatever the agent ignores */
  signal(SIGPIPE, SIG_IGN);
  signal(SIGCHLD, wake);
  sigset_t child = {0}, none = {0};
  sigaddset(&child, SIGCHLD);
  sigprocmask(SIG_SETMASK, &child, NULL); /* let through by ppoll alone */
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  prctl(PR_SET_NAME, "swarm-runner", 0, 0, 0);
  TRY(CHECK(syscall(SYS_close_range, 3u, ~0u, 0u)));
  int input = TRY(CHECK(fcntl(0, F_DUPFD_CLOEXEC, 10))), output = TRY(CHECK(fcntl(1, F_DUPFD_CLOEXEC, 10)));
  int lock = TRY(CHECK(memfd_create("swarm-lock", MFD_CLOEXEC)));
  int null = TRY(CHECK(open("/dev/null", O_RDWR | O_CLOEXEC)));
  for (int fd = 0; fd < 3; fd++) TRY(CHECK(dup2(null, fd)));
  close(null);
  struct pollfd readable = {.fd = input, .events = POLLIN};
  while (true) {
    reap_children(output, lock);
    if (ppoll(&readable, 1, NULL, &none) < 0) continue;
    uint32_t length;
    int result = read_all(input, &length, sizeof length);
    if (result == -EPIPE) return 0;
    TRY(result);
    if (length < 8 || length > FRAME_MAX) return -EBADMSG;
    uint8_t *frame = map_memory(length);
    if (!frame) return -ENOMEM;
    TRY(read_all(input, frame, length));
    struct reader request = {frame, frame + length, false};
    uint32_t id = get_u32(&request), kind = get_u32(&request);
    if (kind == REQUEST_CANCEL) {
      cancel(get_u32(&request));
      answer(output, lock, id, ANSWER_OK, NULL, 0);
      munmap(frame, length);
      continue;
    }
    errno = EAGAIN;
    pid_t pid = child_count < CHILDREN_MAX ? fork() : -1;
    if (pid == 0) {
      close(input);
      serve(output, lock, id, kind, request);
      _exit(0);
    }
    struct failure failure = {STAGE_SUPERVISOR, 0, (uint32_t)errno};
    if (pid < 0) answer(output, lock, id, ANSWER_ERROR, &failure, sizeof failure);
    else children[child_count++] = (struct child){pid, id};
    munmap(frame, length);
  }
}
