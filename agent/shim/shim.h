/*
 * swarm-shim: carries out plans that TypeScript computed. It decides nothing and parses nothing but the length-prefixed
 * binary that `agent/runtime/plan.ts` writes. Every descriptor is close-on-exec, every function answers 0 (or a
 * descriptor) or a negative errno, and what a function opens it closes by `cleanup_close`.
 */
#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static inline void close_fd(int *fd) {
  if (*fd >= 0) close(*fd);
}
#define cleanup_close __attribute__((cleanup(close_fd)))

/* A system call's result as 0-or-more or negative errno. */
#define CHECK(call) ({ long result_ = (call); result_ < 0 ? -errno : (int)result_; })
/* Early return of a negative errno. */
#define TRY(call) ({ int try_ = (call); if (try_ < 0) return try_; try_; })

/* ---- wire.c: the binary of plan.ts. Little-endian u32 and u64; string = u32 length, bytes, NUL. ---- */
struct reader {
  const uint8_t *at, *end;
  bool bad; /* ran past the end, or a string held a NUL: the plan is refused with EBADMSG */
};
uint32_t get_u32(struct reader *reader);
uint64_t get_u64(struct reader *reader);
const char *get_string(struct reader *reader);
const uint8_t *get_bytes(struct reader *reader, uint32_t *length);
struct reader get_reader(struct reader *reader); /* a nested length-prefixed part */

/* Frame: u32 length of the rest, u32 id, u32 kind, payload. The same both ways, on the runner's pipes and the socket. */
enum { FRAME_HEADER = 12, FRAME_MAX = 16 << 20 };
enum answer_kind { ANSWER_OK, ANSWER_ERROR, ANSWER_OUTPUT, ANSWER_EXITED };
int send_frame(int fd, uint32_t id, uint32_t kind, const void *payload, size_t length);
int read_all(int fd, void *buffer, size_t length);
void *map_memory(size_t length);

/* The one error shape: which list's which operation failed, and how. */
enum stage { STAGE_SUPERVISOR, STAGE_HOST, STAGE_CLONE, STAGE_CONTAINER };
struct failure {
  uint32_t stage, index, error;
};

/* ---- path.c: paths inside the container's root, only ever resolved by openat2(RESOLVE_IN_ROOT) ---- */
extern int root_fd;
int open_in_root(const char *path, int flags);
int make_in_root(const char *path, bool directory); /* opens O_PATH, makes what is missing */
int open_parent_in_root(const char *path, const char **name);
int write_file(const char *path, const char *data);

/* ---- ops.c, mount.c, process.c, terminal.c: the operations ---- */
enum { HOST_NETNS_FD = 250, FRAME_ID_EVENT = 0 };
typedef int (*operation)(struct reader *);
extern int sync_fd;          /* the first process's end of the ladder with its supervisor (supervisor.c) */
extern int container_pidfd;  /* the container's first process, for join-container */
extern int host_netlink_fd;  /* a route socket of the host's network namespace */
extern bool keeps_input;     /* standard input stays what it is, in place of the container's /dev/null */

/* Runs a list of operations; `failure->index` says how far it came. */
int run_ops(struct reader *list, struct failure *failure);
void undo_directories(void); /* removes the directories that make-directory made */
int op_mount_overlay(struct reader *), op_bind_root(struct reader *), op_mount_filesystem(struct reader *);
int op_bind_mount(struct reader *), op_mask_paths(struct reader *), op_readonly_paths(struct reader *);
int op_readonly_root(struct reader *), op_pivot_root(struct reader *), op_set_propagation(struct reader *);
int op_set_credentials(struct reader *), op_no_new_privileges(struct reader *), op_load_seccomp(struct reader *);
int op_exec(struct reader *), op_netlink(struct reader *), op_open_terminal(struct reader *);
int op_copy_out(struct reader *), op_copy_in(struct reader *);
int new_filesystem(const char *type, const char *source, struct reader *options, uint32_t attributes);
int bind_descriptor(int fd, const char *target);

/* ---- netlink.c ---- */
int netlink_open(int protocol);
int netlink_acknowledged(int fd, const void *message, size_t length);
/* Sends one request and gathers every answer up to the acknowledgement, refusal (an answer too) or NLMSG_DONE. */
int netlink_transact(int protocol, const void *message, size_t length, uint8_t *answer, size_t size);

/* ---- log.c: two streams to one file in CRI form ---- */
enum { LINE_MAX_BYTES = 16 * 1024 };
int log_open(struct reader *plan);
/* Reads what the pipe holds and writes its lines; 0 = end of file, -EAGAIN = drained, else more may be there. */
int log_pump(int fd, unsigned stream);
/* Writes the line that has no end. */
void log_end(unsigned stream);

/* ---- supervisor.c, control.c, runner.c, volume.c ---- */
enum { PROCESS_MAX_OUTPUT = 4096 };
struct process {
  int pidfd, sync_fd;
  int input; /* the write end of its standard input, or the near end of its terminal: while it is open, neither ends */
  int output[2];
  pid_t pid;
};
struct cgroup {
  struct reader join; /* cgroup.procs files to write the pid into (v1) */
  const char *into, *kill, *freezer, *procs, *oom;
};
extern struct cgroup cgroup;
void get_cgroup(struct reader *plan);
int spawn(uint32_t flags, struct reader ops, struct process *process, struct failure *failure);
int signal_all(int number);
bool oom_killed(void);

enum sync_kind { SYNC_READY, SYNC_FAILED, SYNC_TERMINAL /* with the terminal's other end as SCM_RIGHTS */ };
struct sync_message {
  uint32_t kind, index, error;
};
/* terminal.c: recvmsg of the ladder; with SYNC_TERMINAL, `*terminal` is the descriptor that came. 0 = its end. */
int receive_sync(int fd, struct sync_message *message, int *terminal, int flags);
enum container_status { STATUS_CREATED, STATUS_STARTING, STATUS_RUNNING };

void supervise(uint32_t id, struct reader plan, int answer_fd, int lock_fd) __attribute__((noreturn));
int control_listen(const char *state_directory);
void control_unlink(void);
void control_loop(struct process *container) __attribute__((noreturn));
int runner_main(void);
int enter_image(const char *directory, struct reader overlay);
/* What getdents64(2) fills a buffer with. */
struct entry {
  uint64_t inode;
  int64_t offset;
  uint16_t length;
  uint8_t type;
  char name[];
};
int do_mount(struct reader *), do_bind_below(struct reader *), do_unmount(struct reader *), do_copy_up(struct reader *);
int answer(int fd, int lock_fd, uint32_t id, uint32_t kind, const void *payload, size_t length);
int unpack_main(int argc, char **argv);
int session_main(void);
