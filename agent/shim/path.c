/* Paths inside the container's root. The image wrote that tree: no string of it is ever resolved by a plain open. */
#include "shim.h"
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>

int root_fd = -1;

int open_in_root(const char *path, int flags) {
  struct open_how how = {
      .flags = (uint64_t)(flags | O_CLOEXEC), .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
  /* EAGAIN: something was renamed during the walk. */
  for (int attempt = 0;; attempt++) {
    int fd = CHECK(syscall(SYS_openat2, root_fd, *path ? path : "/", &how, sizeof how));
    if (fd != -EAGAIN || attempt == 64) return fd;
  }
}

/* Puts a dangling link's target in place of the link: `done` ends with the link's name, `rest` follows it. */
static int follow_dangling(int parent, const char *name, char *done, const char *rest, char *path) {
  char target[PATH_MAX], joined[PATH_MAX];
  ssize_t length = readlinkat(parent, name, target, sizeof target - 1);
  if (length < 0) return -errno;
  target[length] = 0;
  *strrchr(done, '/') = 0;
  int size = snprintf(joined, sizeof joined, "%s/%s/%s", target[0] == '/' ? "" : done, target, rest);
  if (size >= (int)sizeof joined) return -ENAMETOOLONG;
  memcpy(path, joined, (size_t)size + 1);
  return 0;
}

/* One component at a time, each made by descriptor in the directory found before it (CVE-2024-45310). */
int make_in_root(const char *wanted, bool directory) {
  int found = open_in_root(wanted, O_PATH);
  if (found != -ENOENT) return found;
  char path[PATH_MAX], done[PATH_MAX] = "";
  if (strlen(wanted) >= sizeof path) return -ENAMETOOLONG;
  strcpy(path, wanted);
  int links = 0;
  int parent = TRY(open_in_root("/", O_PATH | O_DIRECTORY));
  for (char *at = path + strspn(path, "/"); *at;) {
    size_t length = strcspn(at, "/");
    char *rest = at + length + strspn(at + length, "/");
    char *name = done + strlen(done) + 1;
    if (name + length >= done + sizeof done) return -ENAMETOOLONG;
    name[-1] = '/';
    memcpy(name, at, length);
    name[length] = 0;
    int next = open_in_root(done, O_PATH | (*rest ? O_DIRECTORY : 0));
    if (next == -ENOENT && strcmp(name, "..") == 0) return -ENOENT;
    if (next == -ENOENT) {
      bool file = !*rest && !directory;
      int made = file ? CHECK(mknodat(parent, name, S_IFREG | 0644, 0)) : CHECK(mkdirat(parent, name, 0755));
      if (made == -EEXIST) {
        if (++links > 40) return -ELOOP;
        TRY(follow_dangling(parent, name, done, rest, path));
        close(parent);
        parent = TRY(open_in_root("/", O_PATH | O_DIRECTORY));
        *done = 0;
        at = path + strspn(path, "/");
        continue;
      }
      TRY(made);
      next = CHECK(openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
    }
    close(parent);
    parent = TRY(next);
    at = rest;
  }
  return parent;
}

int open_parent_in_root(const char *path, const char **name) {
  char directory[PATH_MAX];
  const char *slash = strrchr(path, '/');
  if (!slash || !slash[1] || strcmp(slash + 1, "..") == 0 || slash - path >= (ptrdiff_t)sizeof directory) return -EINVAL;
  memcpy(directory, path, (size_t)(slash - path));
  directory[slash - path] = 0;
  *name = slash + 1;
  return make_in_root(*directory ? directory : "/", true);
}

int write_file(const char *path, const char *data) {
  cleanup_close int fd = TRY(CHECK(open(path, O_WRONLY | O_CLOEXEC)));
  size_t length = strlen(data);
  int written = CHECK(write(fd, data, length));
  return written < 0 ? written : (size_t)written == length ? 0 : -EIO;
}
