/* The table of operations, and those of them that are a line or two. */
#include "shim.h"
#include <linux/bpf.h>
#include <linux/keyctl.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

int sync_fd = -1, container_pidfd = -1;
bool keeps_input;

/* The directories that were not there before, so that a failure removes no other. */
static const char *made[64];
static size_t made_count;

static int op_make_directory(struct reader *reader) {
  const char *path = get_string(reader);
  uint32_t mode = get_u32(reader);
  int result = reader->bad ? -EBADMSG : CHECK(mkdir(path, mode));
  if (result == 0 && made_count < sizeof made / sizeof *made) made[made_count++] = path;
  return result == -EEXIST ? 0 : result;
}

static int op_write_file(struct reader *reader) {
  const char *path = get_string(reader), *data = get_string(reader);
  bool optional = get_u32(reader);
  int result = reader->bad ? -EBADMSG : write_file(path, data);
  return optional && result == -ENOENT ? 0 : result;
}

static int op_attach_device_program(struct reader *reader) {
  const char *path = get_string(reader);
  uint32_t length;
  const uint8_t *program = get_bytes(reader, &length);
  if (reader->bad) return -EBADMSG;
  union bpf_attr load = {.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE, .insns = (uintptr_t)program,
                         .insn_cnt = length / sizeof(struct bpf_insn), .license = (uintptr_t)"Apache-2.0"};
  cleanup_close int program_fd = TRY(CHECK(syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load)));
  cleanup_close int directory = TRY(CHECK(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
  union bpf_attr attach = {.target_fd = (uint32_t)directory, .attach_bpf_fd = (uint32_t)program_fd,
                           .attach_type = BPF_CGROUP_DEVICE, .attach_flags = BPF_F_ALLOW_MULTI};
  return CHECK(syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach));
}

static int op_unshare(struct reader *reader) {
  return CHECK(unshare((int)get_u32(reader)));
}

static int op_join_namespace(struct reader *reader) {
  uint32_t type = get_u32(reader);
  cleanup_close int fd = TRY(CHECK(open(get_string(reader), O_RDONLY | O_CLOEXEC)));
  return reader->bad ? -EBADMSG : CHECK(setns(fd, (int)type));
}

static int op_join_container(struct reader *reader) {
  (void)reader;
  int all = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET;
  TRY(CHECK(setns(container_pidfd, all)));
  return root_fd = CHECK(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
}

static int op_make_device(struct reader *reader) {
  const char *path = get_string(reader), *name;
  uint32_t mode = get_u32(reader), major_number = get_u32(reader), minor_number = get_u32(reader);
  uint32_t uid = get_u32(reader), gid = get_u32(reader);
  struct stat status;
  if (reader->bad) return -EBADMSG;
  dev_t device = makedev(major_number, minor_number);
  cleanup_close int parent = TRY(open_parent_in_root(path, &name));
  int result = CHECK(mknodat(parent, name, mode, device));
  if (result == -EEXIST && fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
      (status.st_mode & S_IFMT) == (mode & S_IFMT) && status.st_rdev == device)
    return 0;
  TRY(result);
  return uid || gid ? CHECK(fchownat(parent, name, uid, gid, AT_SYMLINK_NOFOLLOW)) : 0;
}

static int op_make_symlink(struct reader *reader) {
  const char *path = get_string(reader), *target = get_string(reader), *name;
  uint32_t replace = get_u32(reader);
  if (reader->bad) return -EBADMSG;
  cleanup_close int parent = TRY(open_parent_in_root(path, &name));
  if (replace && unlinkat(parent, name, 0) < 0 && errno != ENOENT) return -errno;
  return symlinkat(target, parent, name) < 0 && errno != EEXIST ? -errno : 0;
}

/* The host's own procfs, before pivot_root: nothing a container prepared can stand in its way (CVE-2025-52881). */
static int write_proc(const char *path, const char *value) {
  struct statfs status;
  cleanup_close int fd = TRY(CHECK(open(path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC)));
  TRY(CHECK(fstatfs(fd, &status)));
  if (status.f_type != PROC_SUPER_MAGIC) return -EXDEV;
  return CHECK(write(fd, value, strlen(value))) < 0 ? -errno : 0;
}

/*
 * By a procfs of its own, which is out of a container's reach as well. In the host's, every namespace adds entries of the
 * same names, and a lookup compares them one after the other: with many containers that would be most of a start.
 */
static int op_set_sysctl(struct reader *reader) {
  const char *path = get_string(reader), *value = get_string(reader);
  if (reader->bad || strncmp(path, "/proc/", 6) != 0) return -EBADMSG;
  cleanup_close int proc = TRY(new_filesystem("proc", "", NULL, 0));
  cleanup_close int fd = TRY(CHECK(openat(proc, path + 6, O_WRONLY | O_NOFOLLOW | O_CLOEXEC)));
  return CHECK(write(fd, value, strlen(value))) < 0 ? -errno : 0;
}

static int op_set_oom_score(struct reader *reader) {
  const char *value = get_string(reader);
  return reader->bad ? -EBADMSG : write_proc("/proc/self/oom_score_adj", value);
}

static int op_set_hostname(struct reader *reader) {
  const char *name = get_string(reader);
  return reader->bad ? -EBADMSG : CHECK(sethostname(name, strlen(name)));
}

static int op_set_domainname(struct reader *reader) {
  const char *name = get_string(reader);
  return reader->bad ? -EBADMSG : CHECK(setdomainname(name, strlen(name)));
}

static int op_set_rlimit(struct reader *reader) {
  uint32_t resource = get_u32(reader);
  uint64_t limits[2] = {get_u64(reader), get_u64(reader)};
  return reader->bad ? -EBADMSG : CHECK(syscall(SYS_prlimit64, 0, resource, limits, NULL));
}

/* CVE-2024-21626: no descriptor may lead out, and the kernel must be able to name the directory. */
static int op_set_working_directory(struct reader *reader) {
  char name[4096];
  const char *path = get_string(reader);
  if (reader->bad) return -EBADMSG;
  cleanup_close int fd = TRY(make_in_root(path, true));
  TRY(CHECK(fchdir(fd)));
  TRY(CHECK(syscall(SYS_getcwd, name, sizeof name)));
  return name[0] == '/' ? 0 : -EXDEV;
}

static int op_new_keyring(struct reader *reader) {
  (void)reader;
  int result = CHECK(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL));
  return result == -ENOSYS ? 0 : result;
}

static int op_await_start(struct reader *reader) {
  (void)reader;
  struct sync_message ready = {.kind = SYNC_READY};
  uint32_t start;
  TRY(CHECK(send(sync_fd, &ready, sizeof ready, MSG_NOSIGNAL)));
  if (recv(sync_fd, &start, sizeof start, 0) <= 0) _exit(127);
  return CHECK(syscall(SYS_close_range, 3u, ~0u, 4u /* CLOSE_RANGE_CLOEXEC */));
}

/* An operation's place is its number in agent/runtime/plan.ts. */
static const operation operations[] = {
    NULL, op_make_directory, op_write_file, op_attach_device_program, op_netlink, op_unshare, op_join_namespace,
    op_join_container, op_set_propagation, op_mount_overlay, op_bind_root, op_mount_filesystem, op_bind_mount,
    op_make_device, op_make_symlink, op_mask_paths, op_readonly_paths, op_readonly_root, op_pivot_root, op_set_sysctl,
    op_set_hostname, op_set_domainname, op_set_rlimit, op_set_oom_score, op_set_working_directory, op_new_keyring,
    op_set_credentials, op_no_new_privileges, op_load_seccomp, op_await_start, op_exec, op_open_terminal,
    op_copy_out, op_copy_in,
};

int run_ops(struct reader *list, struct failure *failure) {
  uint32_t count = get_u32(list);
  for (uint32_t index = 0; index < count; index++) {
    uint32_t code = get_u32(list);
    struct reader payload = get_reader(list);
    failure->index = index;
    if (list->bad || code >= sizeof operations / sizeof *operations || !operations[code]) return -EBADMSG;
    TRY(operations[code](&payload));
  }
  return 0;
}

void undo_directories(void) {
  while (made_count > 0) {
    const char *path = made[--made_count];
    /* A cgroup stays busy for a moment after its last process was reaped. */
    for (int attempt = 0; rmdir(path) < 0 && errno == EBUSY && attempt < 200; attempt++) usleep(1000);
  }
}
