/*
 * What the runner does for volumes, in the host's mount namespace: file systems of volumes are mounted once for all the
 * containers of the host, a part of a volume is bound by descriptor, and an image's files are copied into a new volume.
 */
#include "shim.h"
#include <dirent.h>
#include <limits.h>
#include <linux/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

enum { DETACH = 2, NO_FOLLOW = 8, COPY_DEPTH_MAX = 128, COPY_BYTES_MAX = 1 << 30, XATTR_BYTES_MAX = 64 << 10 };
int umount2(const char *target, int flags);

static int open_directory(const char *path) {
  return CHECK(open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

static int attach_at(int tree, const char *target) {
  cleanup_close int fd = TRY(open_directory(target));
  return CHECK(syscall(SYS_move_mount, tree, "", fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
}

/* Without asking the file system, whose server may be away. */
static int is_mounted(const char *target) {
  struct statx status;
  TRY(CHECK(statx(AT_FDCWD, target, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC, 0, &status)));
  return (status.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

/* A file system at an existing directory of the host, if there is none yet. It is asked for its root: it may be dead. */
int do_mount(struct reader *request) {
  const char *type = get_string(request), *source = get_string(request), *target = get_string(request);
  uint32_t attributes = get_u32(request);
  struct statx status;
  if (request->bad) return -EBADMSG;
  if (!TRY(is_mounted(target))) {
    cleanup_close int tree = TRY(new_filesystem(type, source, request, attributes));
    TRY(attach_at(tree, target));
  }
  return CHECK(statx(AT_FDCWD, target, AT_SYMLINK_NOFOLLOW | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &status));
}

/* Binds what `path` names below `directory` at `target`. Containers wrote what is there: no link of it leads out. */
int do_bind_below(struct reader *request) {
  const char *directory = get_string(request), *path = get_string(request), *target = get_string(request);
  struct stat status;
  if (request->bad) return -EBADMSG;
  root_fd = TRY(open_directory(directory));
  cleanup_close int part = TRY(open_in_root(path, O_PATH));
  TRY(CHECK(fstat(part, &status)));
  unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH;
  cleanup_close int tree = TRY(CHECK(syscall(SYS_open_tree, part, "", flags)));
  if (S_ISDIR(status.st_mode)) {
    TRY(CHECK(mkdir(target, 0) < 0 && errno != EEXIST ? -1 : 0));
    return attach_at(tree, target);
  }
  cleanup_close int place = TRY(CHECK(open(target, O_RDONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0)));
  return CHECK(syscall(SYS_move_mount, tree, "", place, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
}

/* Takes a mount away from the host and removes its place; containers that have it keep it. What is not mounted is fine. */
int do_unmount(struct reader *request) {
  const char *target = get_string(request);
  if (request->bad) return -EBADMSG;
  int result = CHECK(umount2(target, DETACH | NO_FOLLOW));
  if (result < 0 && result != -EINVAL && result != -ENOENT) return result;
  result = CHECK(rmdir(target));
  if (result == -ENOTDIR) result = CHECK(unlink(target));
  return result == -ENOENT ? 0 : result;
}

static int copy_attributes(int from, int to) {
  char names[XATTR_BYTES_MAX], value[XATTR_BYTES_MAX];
  ssize_t length = flistxattr(from, names, sizeof names);
  if (length < 0) return errno == EOPNOTSUPP ? 0 : -errno;
  for (char *name = names; name < names + length; name += strlen(name) + 1) {
    int size = TRY(CHECK(fgetxattr(from, name, value, sizeof value)));
    int result = CHECK(fsetxattr(to, name, value, (size_t)size, 0));
    if (result < 0 && result != -EOPNOTSUPP) return result;
  }
  return 0;
}

/* Owner, mode, extended attributes and times, in this order: a change of owner takes set-id bits and capabilities away. */
static int copy_metadata(int from, int to, const struct stat *status) {
  struct timespec times[] = {status->st_atim, status->st_mtim};
  TRY(CHECK(fchown(to, status->st_uid, status->st_gid)));
  TRY(CHECK(fchmod(to, status->st_mode & 07777)));
  TRY(copy_attributes(from, to));
  return CHECK(futimens(to, times));
}

static int copy_file(int from, int to, const char *name) {
  struct stat status;
  cleanup_close int source = TRY(CHECK(openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)));
  cleanup_close int copy = TRY(CHECK(openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)));
  while (TRY(CHECK(sendfile(copy, source, NULL, COPY_BYTES_MAX))) > 0) continue;
  TRY(CHECK(fstat(source, &status)));
  return copy_metadata(source, copy, &status);
}

static int copy_link(int from, int to, const char *name) {
  char target[PATH_MAX];
  int length = TRY(CHECK(readlinkat(from, name, target, sizeof target - 1)));
  target[length] = 0;
  return CHECK(symlinkat(target, to, name));
}

static int copy_tree(int from, int to, int depth);

static int copy_entry(int from, int to, const char *name, int depth) {
  struct stat status;
  TRY(CHECK(fstatat(from, name, &status, AT_SYMLINK_NOFOLLOW)));
  if (S_ISDIR(status.st_mode)) {
    if (depth == COPY_DEPTH_MAX) return -ENAMETOOLONG;
    TRY(CHECK(mkdirat(to, name, 0700)));
    cleanup_close int source = TRY(CHECK(openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)));
    cleanup_close int copy = TRY(CHECK(openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)));
    return copy_tree(source, copy, depth + 1);
  }
  if (S_ISREG(status.st_mode)) return copy_file(from, to, name);
  struct timespec times[] = {status.st_atim, status.st_mtim};
  if (S_ISLNK(status.st_mode)) TRY(copy_link(from, to, name));
  else TRY(CHECK(mknodat(to, name, status.st_mode, status.st_rdev)));
  TRY(CHECK(fchownat(to, name, status.st_uid, status.st_gid, AT_SYMLINK_NOFOLLOW)));
  if (!S_ISLNK(status.st_mode)) TRY(CHECK(fchmodat(to, name, status.st_mode & 07777, 0)));
  return CHECK(utimensat(to, name, times, AT_SYMLINK_NOFOLLOW));
}

/* All of a directory, its own metadata last. Nobody else sees either side: the image is read-only, the copy is new. */
static int copy_tree(int from, int to, int depth) {
  struct stat status;
  int result = 0, duplicate = TRY(CHECK(fcntl(from, F_DUPFD_CLOEXEC, 0)));
  DIR *entries = fdopendir(duplicate);
  if (!entries) return close(duplicate), -ENOMEM;
  for (struct dirent *entry; result >= 0 && (errno = 0, entry = readdir(entries));) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    result = copy_entry(from, to, entry->d_name, depth);
  }
  if (result >= 0) result = -errno;
  closedir(entries);
  TRY(result);
  TRY(CHECK(fstat(from, &status)));
  return copy_metadata(from, to, &status);
}

static int is_empty(int directory) {
  uint8_t buffer[4096] __attribute__((aligned(8)));
  for (int length; (length = TRY(CHECK(syscall(SYS_getdents64, directory, buffer, sizeof buffer)))) > 0;) {
    struct entry *entry;
    for (int at = 0; at < length; at += entry->length) {
      entry = (struct entry *)(buffer + at);
      if (strcmp(entry->name, ".") != 0 && strcmp(entry->name, "..") != 0) return false;
    }
  }
  return true;
}

/* Copies what the image has at `path` into a directory if that is empty; an image without a directory there is fine. */
int do_copy_up(struct reader *request) {
  const char *directory = get_string(request), *path = get_string(request), *target = get_string(request);
  struct reader overlay = get_reader(request);
  if (request->bad) return -EBADMSG;
  cleanup_close int copy = TRY(open_directory(target));
  if (!TRY(is_empty(copy))) return 0;
  TRY(enter_image(directory, overlay));
  int opened = open_in_root(path, O_RDONLY | O_DIRECTORY);
  if (opened == -ENOENT || opened == -ENOTDIR) return 0;
  cleanup_close int source = TRY(opened);
  return copy_tree(source, copy, 0);
}
