/*
 * Unpacks a layer: TypeScript has read the tar and decided; this carries out file operations inside one directory.
 *
 * Nothing of a hostile layer may reach beyond that directory. Three walls, any one of which would do: the process has a
 * mount namespace of its own and is chrooted into the directory; every path is resolved from the root's descriptor with
 * openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV), anew for each operation (no resolved parent is
 * remembered); the last component is never followed.
 *
 * An operation, little-endian, followed by `path_length` bytes of path, `argument_length` of argument, `data_length` of data:
 *
 * Into a running container (copy.c) it is the container's own mount namespace and root that nothing reaches beyond.
 *
 *   0 kind u8 | 1 zero u8 | 2 path_length u16 | 4 argument_length u16 | 6 zero u16
 *   8 mode u32 | 12 uid u32 | 16 gid u32 | 20 mtime_nanoseconds u32 | 24 mtime_seconds i64 | 32 data_length u64
 */
#define _GNU_SOURCE
#include "unpack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

enum kind {
  OP_DIRECTORY = 1, /* make it, or give the one that is there this owner and mode */
  OP_FILE,          /* data follows */
  OP_SYMLINK,       /* argument: target, never looked at */
  OP_HARDLINK,      /* argument: path of the target, whose last component is not followed */
  OP_FIFO,
  OP_XATTR,         /* argument: name; data: value; for the directory or file made just before */
  OP_WHITEOUT,      /* hides this name of the layers below: a character device 0:0 */
  OP_OPAQUE,        /* hides everything in this directory of the layers below */
  OP_REMOVE,        /* with all that is in it */
  OP_TIME,          /* of a directory, once nothing more is put into it */
  OP_END,
  OP_LOOK,          /* into a container only: says what is at a path */
  OP_ENTER,         /* into a container only: the directory that all paths begin at from here on */
};

enum {
  PATH_LENGTH_MAX = 4096,
  XATTR_LENGTH_MAX = 65536,
  REMOVE_DEPTH_MAX = 64,
  BUFFER_LENGTH = 1 << 20,
  PIPE_LENGTH = 1 << 20,
  HOLE_LENGTH_MIN = 4096,
};

struct operation {
  struct {
    uint8_t kind, zero1;
    uint16_t path_length, argument_length, zero2;
    uint32_t mode, uid, gid, mtime_nanoseconds;
    int64_t mtime_seconds;
    uint64_t data_length;
  } is; /* the header as it arrives */
  char path[PATH_LENGTH_MAX + 1], argument[PATH_LENGTH_MAX + 1];
};
_Static_assert(sizeof(((struct operation *)0)->is) == 40, "the header has no holes");

static int root = -1;    /* the directory; every resolution starts here */
static bool live;        /* it is in a running container */
static int current = -1; /* what OP_DIRECTORY or OP_FILE made last, for OP_XATTR */
static char buffer[BUFFER_LENGTH];
static size_t buffer_start, buffer_end;

static void close_fd(int *fd) {
  int saved = errno;
  if (*fd >= 0 && *fd != root) close(*fd);
  errno = saved;
}
#define cleanup_fd __attribute__((cleanup(close_fd)))

/* At least one byte of input in the buffer; -1 with EPIPE at its end, which only comes early (OP_END stops us before). */
static int fill(void) {
  if (buffer_start < buffer_end) return 0;
  ssize_t got;
  do got = read(STDIN_FILENO, buffer, sizeof buffer); while (got < 0 && errno == EINTR);
  if (got <= 0) return errno = got == 0 ? EPIPE : errno, -1;
  buffer_start = 0;
  buffer_end = (size_t)got;
  return 0;
}

static int take(void *into, size_t length) {
  for (char *to = into; length > 0;) {
    if (fill() < 0) return -1;
    size_t part = buffer_end - buffer_start < length ? buffer_end - buffer_start : length;
    memcpy(to, buffer + buffer_start, part);
    buffer_start += part;
    to += part;
    length -= part;
  }
  return 0;
}

static int take_text(char *into, size_t length) {
  if (length > PATH_LENGTH_MAX) return errno = ENAMETOOLONG, -1;
  if (take(into, length) < 0) return -1;
  into[length] = '\0';
  return strlen(into) == length ? 0 : (errno = EINVAL, -1);
}

static int take_operation(struct operation *op) {
  op->path[0] = '\0';
  if (take(&op->is, sizeof op->is) < 0 || take_text(op->path, op->is.path_length) < 0) return -1;
  return take_text(op->argument, op->is.argument_length);
}

/* For utimensat: access and change time alike. */
static const struct timespec *times(const struct operation *op) {
  static struct timespec both[2];
  both[0] = both[1] = (struct timespec){ .tv_sec = op->is.mtime_seconds, .tv_nsec = op->is.mtime_nanoseconds };
  return both;
}

static int resolve(int from, const char *path, int flags, uint64_t how) {
  uint64_t resolving = how | RESOLVE_NO_MAGICLINKS | (live ? 0 : RESOLVE_NO_XDEV);
  struct open_how open_how = { .flags = (uint64_t)(flags | O_CLOEXEC), .resolve = resolving };
  /* EAGAIN: something was renamed or mounted, anywhere, while a ".." was walked. */
  for (int attempt = 0;; attempt++) {
    int fd = (int)syscall(SYS_openat2, from, path[0] == '\0' ? "." : path, &open_how, sizeof open_how);
    if (fd >= 0 || errno != EAGAIN || attempt == 1000) return fd;
  }
}

static int open_directory(const char *path) {
  uint64_t how = live ? RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS : RESOLVE_IN_ROOT;
  return resolve(root, path, O_RDONLY | O_DIRECTORY, how);
}

static int set_opaque(int directory) { return fsetxattr(directory, "trusted.overlay.opaque", "y", 1, 0); }

static int is_whiteout(const struct stat *status) {
  return !live && S_ISCHR(status->st_mode) && status->st_rdev == makedev(0, 0);
}

/* What lies too deep for this stack is moved up to `top` and counted as postponed. */
static int remove_entry(int top, int parent, const char *name, int depth, int *postponed) {
  if (unlinkat(parent, name, 0) == 0) return 0;
  if (errno != EISDIR) return -1;
  if (depth >= REMOVE_DEPTH_MAX) {
    char deep[32];
    snprintf(deep, sizeof deep, ".swarm-removed-%d", (*postponed)++);
    return renameat2(parent, name, top, deep, RENAME_NOREPLACE);
  }
  int directory = resolve(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
  DIR *stream = directory < 0 ? NULL : fdopendir(directory);
  if (stream == NULL) return -1;
  int result = 0;
  for (struct dirent *entry; result == 0 && (entry = readdir(stream)) != NULL;)
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
      result = remove_entry(top, directory, entry->d_name, depth + 1, postponed);
  int saved = errno;
  closedir(stream);
  errno = saved;
  return result < 0 ? -1 : unlinkat(parent, name, AT_REMOVEDIR);
}

static int remove_tree(int parent, const char *name) {
  int postponed = 0, done = 0;
  if (remove_entry(parent, parent, name, 0, &postponed) < 0) return -1;
  while (done < postponed) {
    char deep[32];
    snprintf(deep, sizeof deep, ".swarm-removed-%d", done++);
    if (remove_entry(parent, parent, deep, 0, &postponed) < 0) return -1;
  }
  return 0;
}

/* A directory at `name`, new or as it is there; a whiteout in its place becomes an opaque directory. */
static int make_directory(int parent, const char *name, mode_t mode, int replace) {
  if (mkdirat(parent, name, mode) == 0) return 0;
  struct stat status;
  if (errno != EEXIST || fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) < 0) return -1;
  if (S_ISDIR(status.st_mode)) return 0;
  int opaque = is_whiteout(&status);
  if (!opaque && (!replace || live)) return errno = S_ISLNK(status.st_mode) && !live ? ENOENT : ENOTDIR, -1;
  if (unlinkat(parent, name, 0) < 0 || mkdirat(parent, name, mode) < 0) return -1;
  if (!opaque) return 0;
  cleanup_fd int directory = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  return directory < 0 ? -1 : set_opaque(directory);
}

static int open_parent(char *path, const char **name, int make);

/* Opens the directory at `path`, making what is missing of it (root:root 0755). */
static int open_or_make(char *path) {
  const char *name;
  int directory = open_directory(path);
  if (directory >= 0 || *path == '\0' || (errno != ENOENT && errno != ENOTDIR)) return directory;
  cleanup_fd int parent = open_parent(path, &name, 1);
  return parent < 0 || make_directory(parent, name, 0755, 0) < 0 ? -1 : open_directory(path);
}

/* Opens the parent of `path` and sets `name` to the last component ("" for the root). */
static int open_parent(char *path, const char **name, int make) {
  char *slash = strrchr(path, '/');
  *name = slash == NULL ? path : slash + 1;
  if (slash == NULL) return root;
  *slash = '\0';
  int parent = make ? open_or_make(path) : open_directory(path);
  *slash = '/';
  return parent;
}

/* Takes away what stands where something other than a directory is to come. */
static int clear_place(int parent, const char *name) {
  if (live) return unlinkat(parent, name, 0) < 0 && errno != ENOENT ? -1 : 0;
  return remove_tree(parent, name) < 0 && errno != ENOENT ? -1 : 0;
}

static int put_directory(struct operation *op, int parent, const char *name) {
  if (*name != '\0' && make_directory(parent, name, 0700, 1) < 0) return -1;
  current = *name == '\0' ? dup(root) : openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (current < 0 || fchown(current, op->is.uid, op->is.gid) < 0) return -1;
  return fchmod(current, op->is.mode);
}

/* Into a container, whose disk may be small, zeros are left out: a sparse file stays one. */
static ssize_t put_bytes(const char *from, size_t length) {
  bool zeros = live && length >= HOLE_LENGTH_MIN && from[0] == '\0' && memcmp(from, from + 1, length - 1) == 0;
  if (!zeros) return write(current, from, length);
  return lseek(current, (off_t)length, SEEK_CUR) < 0 ? -1 : (ssize_t)length;
}

static int put_file(struct operation *op, int parent, const char *name) {
  const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  current = openat(parent, name, flags, 0600);
  if (current < 0 && errno == EEXIST) {
    if (clear_place(parent, name) < 0) return -1;
    current = openat(parent, name, flags, 0600);
  }
  if (current < 0) return -1;
  for (uint64_t left = op->is.data_length; left > 0;) {
    if (fill() < 0) return -1;
    size_t part = buffer_end - buffer_start < left ? buffer_end - buffer_start : (size_t)left;
    ssize_t written = put_bytes(buffer + buffer_start, part);
    if (written < 0) return -1;
    buffer_start += (size_t)written;
    left -= (uint64_t)written;
  }
  if (live && op->is.data_length > 0 && ftruncate(current, (off_t)op->is.data_length) < 0) return -1;
  if (fchown(current, op->is.uid, op->is.gid) < 0 || fchmod(current, op->is.mode) < 0) return -1;
  return futimens(current, times(op));
}

static int put_hardlink(struct operation *op, int parent, const char *name) {
  const char *target_name;
  cleanup_fd int target_parent = open_parent(op->argument, &target_name, 0);
  struct stat target, place;
  if (target_parent < 0 || fstatat(target_parent, target_name, &target, AT_SYMLINK_NOFOLLOW) < 0) return -1;
  if (S_ISDIR(target.st_mode)) return errno = EISDIR, -1;
  if (is_whiteout(&target)) return errno = ENOENT, -1;
  if (fstatat(parent, name, &place, AT_SYMLINK_NOFOLLOW) == 0) {
    if (place.st_dev == target.st_dev && place.st_ino == target.st_ino)
      return 0; /* already that file: removing it first would lose it */
    if (clear_place(parent, name) < 0) return -1;
  }
  return linkat(target_parent, target_name, parent, name, 0);
}

/* A symlink or fifo: made, then given its owner, mode and time without following. */
static int put_node(struct operation *op, int parent, const char *name) {
  if (clear_place(parent, name) < 0) return -1;
  int made = op->is.kind == OP_SYMLINK ? symlinkat(op->argument, parent, name) : mkfifoat(parent, name, 0600);
  if (made < 0 || fchownat(parent, name, op->is.uid, op->is.gid, AT_SYMLINK_NOFOLLOW) < 0) return -1;
  if (op->is.kind == OP_FIFO && fchmodat(parent, name, op->is.mode, 0) < 0) return -1;
  return utimensat(parent, name, times(op), AT_SYMLINK_NOFOLLOW);
}

/* A whiteout hides the layers below only: what this layer itself brings at that name stays, a directory as opaque. */
static int put_whiteout(int parent, const char *name) {
  struct stat status;
  if (mknodat(parent, name, S_IFCHR | 0000, makedev(0, 0)) == 0) return 0;
  if (errno != EEXIST || fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) < 0) return -1;
  if (!S_ISDIR(status.st_mode)) return 0;
  cleanup_fd int directory = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  return directory < 0 ? -1 : set_opaque(directory);
}

static int put_xattr(struct operation *op) {
  static char value[XATTR_LENGTH_MAX];
  if (current < 0 || op->is.data_length > sizeof value) return errno = E2BIG, -1;
  if (take(value, op->is.data_length) < 0) return -1;
  return fsetxattr(current, op->argument, value, op->is.data_length, 0);
}

/* A directory that was replaced since by something else keeps the time of its successor. */
static int put_time(struct operation *op) {
  uint64_t how = live ? RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS : RESOLVE_IN_ROOT;
  cleanup_fd int directory = resolve(root, op->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, how);
  if (directory < 0) return errno == ENOENT || errno == ENOTDIR || errno == ELOOP ? 0 : -1;
  return futimens(directory, times(op));
}

/* Of copy.c, in its manner: a negative errno. */
static int find_place(struct operation *op) {
  int result = op->is.kind == OP_LOOK ? copy_look(op->path) : copy_enter(op->path);
  if (result < 0) return errno = -result, -1;
  if (op->is.kind == OP_ENTER) root = result;
  return 0;
}

static int carry_out(struct operation *op) {
  if (op->is.kind == OP_XATTR) return put_xattr(op);
  close_fd(&current);
  current = -1;
  if (live && (op->is.kind == OP_LOOK || op->is.kind == OP_ENTER)) return find_place(op);
  if (live && root < 0) return errno = EINVAL, -1;
  if (op->is.kind == OP_TIME) return put_time(op);
  if (op->is.kind == OP_OPAQUE) {
    cleanup_fd int directory = open_or_make(op->path);
    return directory < 0 ? -1 : set_opaque(directory);
  }

  const char *name;
  cleanup_fd int parent = open_parent(op->path, &name, op->is.kind != OP_REMOVE);
  if (parent < 0) return op->is.kind == OP_REMOVE && errno == ENOENT ? 0 : -1;
  if (*name == '\0' && op->is.kind != OP_DIRECTORY) return errno = EINVAL, -1;
  switch (op->is.kind) {
  case OP_DIRECTORY: return put_directory(op, parent, name);
  case OP_FILE: return put_file(op, parent, name);
  case OP_HARDLINK: return put_hardlink(op, parent, name);
  case OP_SYMLINK:
  case OP_FIFO: return put_node(op, parent, name);
  case OP_WHITEOUT: return put_whiteout(parent, name);
  case OP_REMOVE: return clear_place(parent, name);
  default: return errno = ENOSYS, -1;
  }
}

/* Own mounts, no network, no file larger than the limit, nothing above the directory. */
static int enter(const char *directory, const char *file_bytes_max) {
  rlim_t limit = strtoull(file_bytes_max, NULL, 10);
  const struct rlimit file_size = { .rlim_cur = limit, .rlim_max = limit };
  prctl(PR_SET_PDEATHSIG, SIGKILL); /* or a killed agent's successor would clean up under our hands */
  signal(SIGXFSZ, SIG_IGN);
  umask(0);
  fcntl(STDIN_FILENO, F_SETPIPE_SZ, PIPE_LENGTH); /* only faster: stdin may be a socket */
  if (syscall(SYS_close_range, 3U, ~0U, 0U) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return -1;
  root = open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (root < 0 || unshare(CLONE_NEWNS | CLONE_NEWNET) < 0) return -1;
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) return -1;
  if (setrlimit(RLIMIT_FSIZE, &file_size) < 0 || fchdir(root) < 0) return -1;
  return chroot(".") < 0 || chdir("/") < 0 ? -1 : 0;
}

static int report(unsigned kind, const char *path) {
  dprintf(STDOUT_FILENO, "%u %d %s", kind, errno, path);
  return 1;
}

int unpack_into_container(void) {
  static struct operation op;
  live = true;
  do {
    if (take_operation(&op) == 0 && (op.is.kind == OP_END || carry_out(&op) == 0)) continue;
    return copy_failed(op.is.kind, op.path, errno), -1;
  } while (op.is.kind != OP_END);
  return 0;
}

int unpack_main(int argc, char **argv) {
  static struct operation op;
  if (argc != 4) return errno = EINVAL, report(0, "");
  if (enter(argv[2], argv[3]) < 0) return report(0, argv[2]);
  do {
    if (take_operation(&op) < 0 || (op.is.kind != OP_END && carry_out(&op) < 0)) return report(op.is.kind, op.path);
  } while (op.is.kind != OP_END);
  /* One flush for the whole layer; the caller renames it into place only after this. */
  return syncfs(root) < 0 ? report(OP_END, "") : 0;
}
