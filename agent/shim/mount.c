/* Mounts. Inside the root everything goes by descriptor: open_tree, mount_setattr, move_mount (kernel 5.12). */
#include "shim.h"
#include <linux/magic.h>
#include <linux/mount.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

/* From <sys/mount.h>, which cannot be included together with <linux/mount.h>. */
enum { MOUNT_BIND = 4096, MOUNT_REC = 16384, MOUNT_SLAVE = 1 << 19, UNMOUNT_DETACH = 2, AT_WHOLE_TREE = 0x8000 };
int mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data);
int umount2(const char *target, int flags);

static int clone_tree(int fd, const char *path, bool recursive) {
  unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (recursive ? AT_WHOLE_TREE : 0) | (*path ? 0 : AT_EMPTY_PATH);
  return CHECK(syscall(SYS_open_tree, fd, path, flags));
}

static int set_attributes(int fd, uint64_t attributes, uint64_t propagation, bool recursive) {
  struct mount_attr change = {.attr_set = attributes, .propagation = propagation};
  if (attributes & MOUNT_ATTR__ATIME) change.attr_clr = MOUNT_ATTR__ATIME;
  unsigned flags = AT_EMPTY_PATH | (recursive ? AT_WHOLE_TREE : 0);
  return CHECK(syscall(SYS_mount_setattr, fd, "", flags, &change, sizeof change));
}

static int attach(int tree, int target) {
  return CHECK(syscall(SYS_move_mount, tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
}

/* Whatever links an image has on the way: nothing lies over or in the container's /proc (CVE-2019-16884 and its kin). */
static int attach_outside_proc(int tree, int target) {
  struct statfs status;
  TRY(CHECK(fstatfs(target, &status)));
  return status.f_type == PROC_SUPER_MAGIC ? -EXDEV : attach(tree, target);
}

int op_set_propagation(struct reader *reader) {
  return CHECK(mount(NULL, "/", NULL, MOUNT_REC | get_u32(reader), NULL));
}

static int open_root(const char *path) {
  return root_fd = CHECK(open(path, O_PATH | O_DIRECTORY | O_CLOEXEC));
}

/* Layers are named by descriptor: short whatever their paths are, and silent about the host in /proc/mounts. */
int op_mount_overlay(struct reader *reader) {
  char options[4096];
  size_t used = 0;
  const char *target = get_string(reader);
  const char *extra = get_string(reader);
  bool writable = get_u32(reader);
  uint32_t count = get_u32(reader) + (writable ? 2 : 0);
  int fds[256];
  if (count > 256) return -E2BIG;
  for (uint32_t index = 0; index < count; index++) {
    const char *path = get_string(reader);
    if (reader->bad) return -EBADMSG;
    fds[index] = TRY(CHECK(open(path, O_PATH | O_DIRECTORY | O_CLOEXEC)));
    bool upper = writable && index == count - 2, work = writable && index == count - 1;
    const char *key = upper ? ",upperdir=" : work ? ",workdir=" : index ? ":" : "lowerdir=";
    used += (size_t)snprintf(options + used, sizeof options - used, "%s/proc/self/fd/%d", key, fds[index]);
    if (used >= sizeof options) return -E2BIG;
  }
  used += (size_t)snprintf(options + used, sizeof options - used, "%s%s", *extra ? "," : "", extra);
  if (used >= sizeof options) return -E2BIG;
  TRY(CHECK(mount("overlay", target, "overlay", 0, options)));
  for (uint32_t index = 0; index < count; index++) close(fds[index]);
  return open_root(target);
}

int op_bind_root(struct reader *reader) {
  const char *source = get_string(reader), *target = get_string(reader);
  if (reader->bad) return -EBADMSG;
  TRY(CHECK(mount(source, target, NULL, MOUNT_BIND | MOUNT_REC, NULL)));
  return open_root(target);
}

/* A detached mount of a new file system; `options` holds key, value pairs where an empty value means a flag. */
int new_filesystem(const char *type, const char *source, struct reader *options, uint32_t attributes) {
  cleanup_close int context = TRY(CHECK(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC)));
  if (*source) TRY(CHECK(syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "source", source, 0)));
  for (uint32_t count = options ? get_u32(options) : 0; count; count--) {
    const char *key = get_string(options), *value = get_string(options);
    if (options->bad) return -EBADMSG;
    if (*value) TRY(CHECK(syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, key, value, 0)));
    else TRY(CHECK(syscall(SYS_fsconfig, context, FSCONFIG_SET_FLAG, key, NULL, 0)));
  }
  TRY(CHECK(syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0)));
  return CHECK(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes));
}

int op_mount_filesystem(struct reader *reader) {
  const char *type = get_string(reader), *source = get_string(reader), *target = get_string(reader);
  uint32_t attributes = get_u32(reader);
  if (reader->bad) return -EBADMSG;
  cleanup_close int tree = TRY(new_filesystem(type, source, reader, attributes));
  cleanup_close int fd = TRY(make_in_root(target, true));
  return attach_outside_proc(tree, fd);
}

int op_bind_mount(struct reader *reader) {
  const char *source = get_string(reader), *target = get_string(reader);
  bool recursive = get_u32(reader);
  uint32_t attributes = get_u32(reader), propagation = get_u32(reader);
  struct stat status;
  if (reader->bad) return -EBADMSG;
  cleanup_close int tree = TRY(clone_tree(AT_FDCWD, source, recursive));
  TRY(CHECK(fstat(tree, &status)));
  TRY(set_attributes(tree, attributes, propagation, recursive));
  cleanup_close int fd = TRY(make_in_root(target, S_ISDIR(status.st_mode)));
  return attach_outside_proc(tree, fd);
}

/* Binds what a descriptor has open over a file in the root, made when it is missing. */
int bind_descriptor(int fd, const char *target) {
  cleanup_close int tree = TRY(clone_tree(fd, "", false));
  cleanup_close int place = TRY(make_in_root(target, false));
  return attach_outside_proc(tree, place);
}

/* The container's own /dev/null, proven to be that device (CVE-2025-31133). */
static int open_null(void) {
  struct stat status;
  int fd = TRY(open_in_root("/dev/null", O_PATH));
  if (fstat(fd, &status) == 0 && S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 3)) return fd;
  close(fd);
  return -ENODEV;
}

static bool is_missing(int result) {
  return result == -ENOENT || result == -ENOTDIR;
}

int op_mask_paths(struct reader *reader) {
  cleanup_close int empty = -1, null = -1;
  uint32_t attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
  for (uint32_t count = get_u32(reader); count; count--) {
    struct stat status;
    const char *path = get_string(reader);
    if (reader->bad) return -EBADMSG;
    cleanup_close int fd = open_in_root(path, O_PATH);
    if (is_missing(fd)) continue;
    TRY(fd);
    TRY(CHECK(fstat(fd, &status)));
    if (S_ISDIR(status.st_mode) && empty < 0) {
      /* Attached at the first directory, copied from there to the others: one superblock for all. */
      empty = TRY(new_filesystem("tmpfs", "tmpfs", NULL, attributes));
      TRY(attach(empty, fd));
      continue;
    }
    if (!S_ISDIR(status.st_mode) && null < 0) null = TRY(open_null());
    cleanup_close int tree = TRY(clone_tree(S_ISDIR(status.st_mode) ? empty : null, "", false));
    TRY(attach(tree, fd));
  }
  return 0;
}

int op_readonly_paths(struct reader *reader) {
  for (uint32_t count = get_u32(reader); count; count--) {
    const char *path = get_string(reader);
    if (reader->bad) return -EBADMSG;
    cleanup_close int fd = open_in_root(path, O_PATH);
    if (is_missing(fd)) continue;
    TRY(fd);
    cleanup_close int tree = TRY(clone_tree(fd, "", true));
    TRY(set_attributes(tree, MOUNT_ATTR_RDONLY, 0, true));
    TRY(attach(tree, fd));
  }
  return 0;
}

int op_readonly_root(struct reader *reader) {
  (void)reader;
  return set_attributes(root_fd, MOUNT_ATTR_RDONLY, 0, false);
}

/* pivot_root(".", ".") stacks the host's tree over the new root; detaching "." then uncovers the root (crun, LXC). */
int op_pivot_root(struct reader *reader) {
  (void)reader;
  cleanup_close int old = TRY(CHECK(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC)));
  TRY(CHECK(fchdir(root_fd)));
  TRY(CHECK(syscall(SYS_pivot_root, ".", ".")));
  TRY(CHECK(fchdir(old)));
  TRY(CHECK(mount(NULL, ".", NULL, MOUNT_REC | MOUNT_SLAVE, NULL)));
  TRY(CHECK(umount2(".", UNMOUNT_DETACH)));
  return CHECK(chdir("/"));
}
