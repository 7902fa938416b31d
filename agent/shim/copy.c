/*
 * Files out of a running container and into it: two operations that end a session's plan in place of exec, so that copying has
 * a command's streams, its place in the container's cgroup, and its end. The process has the container's mounts and root and
 * is in none of its pid namespaces: nothing of it shows in there, and what lies outside cannot be named from it.
 *
 * The container is at work meanwhile, and may be hostile. So every step goes by descriptor from the step before; below the
 * place that was asked for no symbolic link is followed, and nowhere a magic one; only what is a regular file is opened, and
 * is looked at again afterwards; nothing is waited for but the disk.
 *
 * What goes out on standard output are records, little-endian, each followed by `path_length` bytes of path, `text_length` of
 * text and, for an ENTRY that is a regular file, `size` bytes of content. What comes in are the operations of unpack.c.
 */
#include "shim.h"
#include "unpack.h"
#include <limits.h>
#include <linux/openat2.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/vfs.h>

enum record_kind {
  RECORD_ENTRY = 1, /* text: a symbolic link's target */
  RECORD_LINKED,    /* a file that went out before, under another name */
  RECORD_SKIPPED,   /* a socket, which no archive can hold */
  RECORD_SHRUNK,    /* the file before ended early: zeros stand in for `size` bytes of it */
  RECORD_PLACE,     /* mode 0: nothing is there; else as ENTRY, without content */
  RECORD_FAILURE,   /* mode: errno; device: the operation, of unpack.h, or 0 */
  RECORD_END,
};
enum { PLACE_READ_ONLY = 1, PLACE_IN_ROOT = 2 }; /* flags: of the mount; whether that is the container's root */

struct record {
  uint8_t kind, flags;
  uint16_t path_length, text_length, zero;
  uint32_t mode, uid, gid, mtime_nanoseconds;
  int64_t mtime_seconds;
  uint64_t size, device, inode;
  uint32_t links, major, minor, zero2;
};
_Static_assert(sizeof(struct record) == 72, "a record has no holes");

enum {
  CONTENT_MAX = 1 << 20, /* a file up to this size is read before its size is told: /proc and /sys do not know theirs */
  DEPTH_MAX = 256,       /* a descriptor each */
  LINKED_MAX = 48 << 10, /* files with several names that are remembered; as in agent/copy/archive.ts */
  LINKED_SLOTS = 64 << 10,
  PSEUDO_MAX = 11,
};
/* File systems that are not anybody's files: what they are mounted on goes out, what they show does not. */
static const unsigned long pseudo[PSEUDO_MAX] = {
    0x9fa0 /* proc */, 0x62656572 /* sysfs */, 0x27e0eb /* cgroup */, 0x63677270 /* cgroup2 */, 0x1cd1 /* devpts */,
    0x19800202 /* mqueue */, 0x64626720 /* debugfs */, 0x74726163 /* tracefs */, 0x73636673 /* securityfs */,
    0xcafe4a11 /* bpf */, 0x6e736673 /* nsfs */};

static char path[PATH_MAX]; /* of the entry at hand, in the archive */
static uint8_t content[CONTENT_MAX];
static struct {
  uint64_t device, inode;
} linked[LINKED_SLOTS];
static size_t linked_count;

static int write_all(const void *bytes, size_t length) {
  for (size_t done = 0; done < length;) {
    ssize_t count = write(STDOUT_FILENO, (const uint8_t *)bytes + done, length - done);
    if (count < 0 && errno != EINTR) _exit(1); /* nobody reads it any more */
    if (count > 0) done += (size_t)count;
  }
  return 0;
}

static void send_record(struct record record, const char *name, const char *text) {
  uint8_t whole[sizeof record + 2 * PATH_MAX];
  record.path_length = (uint16_t)strlen(name);
  record.text_length = (uint16_t)strlen(text);
  memcpy(whole, &record, sizeof record);
  memcpy(whole + sizeof record, name, record.path_length);
  memcpy(whole + sizeof record + record.path_length, text, record.text_length);
  write_all(whole, sizeof record + record.path_length + record.text_length);
}

static struct record record_of(uint8_t kind, const struct stat *status) {
  return (struct record){
      .kind = kind, .mode = status->st_mode, .uid = status->st_uid, .gid = status->st_gid,
      .mtime_seconds = status->st_mtim.tv_sec, .mtime_nanoseconds = (uint32_t)status->st_mtim.tv_nsec,
      .size = S_ISREG(status->st_mode) ? (uint64_t)status->st_size : 0, .device = status->st_dev, .inode = status->st_ino,
      .links = (uint32_t)status->st_nlink, .major = major(status->st_rdev), .minor = minor(status->st_rdev)};
}

void copy_failed(unsigned operation, const char *name, int error) {
  send_record((struct record){.kind = RECORD_FAILURE, .mode = (uint32_t)error, .device = operation}, name, "");
}

static int resolve(int at, const char *name, int flags, uint64_t how) {
  struct open_how open_how = {.flags = (uint64_t)(flags | O_CLOEXEC), .resolve = how | RESOLVE_NO_MAGICLINKS};
  /* EAGAIN: something was renamed during the walk, anywhere; a container that does nothing else does not hold us up. */
  for (int attempt = 0;; attempt++) {
    int fd = CHECK(syscall(SYS_openat2, at, name, &open_how, sizeof open_how));
    if (fd != -EAGAIN || attempt == 1000) return fd;
  }
}

/* Whether it went out before; remembers it if there is room. */
static bool went_out(const struct stat *status) {
  uint64_t hash = (status->st_ino ^ status->st_dev * 0x9e3779b97f4a7c15u) * 0x9e3779b97f4a7c15u;
  for (size_t slot = hash >> 48;; slot = (slot + 1) % LINKED_SLOTS) {
    if (linked[slot].device == status->st_dev && linked[slot].inode == status->st_ino) return true;
    if (linked[slot].inode) continue;
    if (linked_count == LINKED_MAX) return false;
    linked_count++;
    linked[slot].device = status->st_dev, linked[slot].inode = status->st_ino;
    return false;
  }
}

/* The rest of a file whose size was told already; zeros take the place of what is not there any more. */
static int send_content(int fd, uint64_t left) {
  while (left > 0) {
    int count = TRY(CHECK(read(fd, content, left < CONTENT_MAX ? (size_t)left : CONTENT_MAX)));
    if (count == 0) break;
    write_all(content, (size_t)count);
    left -= (uint64_t)count;
  }
  struct record shrunk = {.kind = RECORD_SHRUNK, .size = left};
  memset(content, 0, left < CONTENT_MAX ? (size_t)left : CONTENT_MAX);
  for (size_t part; left > 0; left -= part) write_all(content, part = left < CONTENT_MAX ? (size_t)left : CONTENT_MAX);
  if (shrunk.size > 0) send_record(shrunk, path, "");
  return 0;
}

static int send_file(int fd, const struct stat *status) {
  struct record record = record_of(RECORD_ENTRY, status);
  if (status->st_nlink > 1 && went_out(status)) {
    record.kind = RECORD_LINKED;
    return send_record(record, path, ""), 0;
  }
  if (status->st_size > CONTENT_MAX) {
    send_record(record, path, "");
    return send_content(fd, record.size);
  }
  size_t have = 0;
  for (int count = 1; count > 0 && have < CONTENT_MAX; have += (size_t)count)
    count = TRY(CHECK(read(fd, content + have, CONTENT_MAX - have)));
  record.size = have;
  send_record(record, path, "");
  return write_all(content, have);
}

static bool is_pseudo(int directory) {
  struct statfs system;
  if (fstatfs(directory, &system) < 0) return false;
  for (int index = 0; index < PSEUDO_MAX; index++)
    if ((unsigned long)system.f_type == pseudo[index]) return true;
  return false;
}

static int send_tree(int at, const char *name, int flags, uint64_t how, dev_t above, int depth);

static int send_children(int directory, dev_t device, int depth) {
  uint8_t buffer[4096] __attribute__((aligned(8)));
  size_t length = strlen(path);
  if (depth == DEPTH_MAX) return -ENAMETOOLONG;
  for (int have; (have = TRY(CHECK(syscall(SYS_getdents64, directory, buffer, sizeof buffer)))) > 0;) {
    struct entry *entry;
    for (int at = 0; at < have; at += entry->length) {
      entry = (struct entry *)(buffer + at);
      if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0) continue;
      if (length + 1 + strlen(entry->name) >= sizeof path) return -ENAMETOOLONG;
      path[length] = '/';
      strcpy(path + length + 1, entry->name);
      TRY(send_tree(directory, entry->name, O_NOFOLLOW, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS, device, depth + 1));
      path[length] = 0; /* a failure keeps the path that it is about */
    }
  }
  return 0;
}

/* What vanished, or became something else, since its name was read is as if it had not been there. */
static bool vanished(int result, int depth) {
  return depth > 0 && (result == -ENOENT || result == -ENOTDIR || result == -ELOOP);
}

static int send_tree(int at, const char *name, int flags, uint64_t how, dev_t above, int depth) {
  static char target[PATH_MAX];
  struct stat status;
  int result = resolve(at, name, O_PATH | flags, how);
  if (vanished(result, depth)) return 0;
  cleanup_close int place = TRY(result);
  TRY(CHECK(fstat(place, &status)));
  bool file = S_ISREG(status.st_mode), directory = S_ISDIR(status.st_mode);
  if (S_ISSOCK(status.st_mode)) return send_record(record_of(RECORD_SKIPPED, &status), path, ""), 0;
  target[S_ISLNK(status.st_mode) ? TRY(CHECK(readlinkat(place, "", target, sizeof target - 1))) : 0] = 0;
  if (!file && !directory) return send_record(record_of(RECORD_ENTRY, &status), path, target), 0;
  result = resolve(at, name, O_RDONLY | O_NONBLOCK | O_NOCTTY | (directory ? O_DIRECTORY : 0) | flags, how);
  if (vanished(result, depth)) return 0;
  cleanup_close int opened = TRY(result);
  TRY(CHECK(fstat(opened, &status)));
  if (file) return S_ISREG(status.st_mode) ? send_file(opened, &status) : 0;
  send_record(record_of(RECORD_ENTRY, &status), path, "");
  return depth > 0 && status.st_dev != above && is_pseudo(opened) ? 0 : send_children(opened, status.st_dev, depth);
}

/* From here on the plan cannot fail any more: as with exec, the end of the ladder says so. */
static void begin(void) {
  close_fd(&sync_fd);
  sync_fd = -1;
  signal(SIGXFSZ, SIG_IGN);
}

int op_copy_out(struct reader *reader) {
  const char *wanted = get_string(reader), *name = get_string(reader);
  bool follow = get_u32(reader);
  if (reader->bad || strlen(name) >= sizeof path) return -EBADMSG;
  begin();
  strcpy(path, name);
  int result = send_tree(root_fd, wanted, follow ? 0 : O_NOFOLLOW, RESOLVE_IN_ROOT, 0, 0);
  if (result < 0) copy_failed(0, path, -result);
  else send_record((struct record){.kind = RECORD_END}, "", "");
  _exit(result < 0);
}

static uint64_t mount_id(int fd) {
  struct statx status = {0};
  return statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &status) < 0 ? 0 : status.stx_mnt_id;
}

/* Says what is at a path, whose last part is not followed. */
int copy_look(const char *wanted) {
  struct stat status;
  struct statvfs system;
  char target[PATH_MAX] = "";
  int result = resolve(root_fd, wanted, O_PATH | O_NOFOLLOW, RESOLVE_IN_ROOT);
  if (result == -ENOENT) return send_record((struct record){.kind = RECORD_PLACE}, wanted, ""), 0;
  cleanup_close int place = TRY(result);
  TRY(CHECK(fstat(place, &status)));
  TRY(CHECK(fstatvfs(place, &system)));
  if (S_ISLNK(status.st_mode)) target[TRY(CHECK(readlinkat(place, "", target, sizeof target - 1)))] = 0;
  struct record record = record_of(RECORD_PLACE, &status);
  record.flags = (system.f_flag & ST_RDONLY ? PLACE_READ_ONLY : 0) | (mount_id(place) == mount_id(root_fd) ? PLACE_IN_ROOT : 0);
  return send_record(record, wanted, target), 0;
}

/* The directory that everything else goes into. */
int copy_enter(const char *wanted) {
  return resolve(root_fd, wanted, O_RDONLY | O_DIRECTORY, RESOLVE_IN_ROOT);
}

int op_copy_in(struct reader *reader) {
  (void)reader;
  begin();
  int result = unpack_into_container();
  if (result == 0) send_record((struct record){.kind = RECORD_END}, "", "");
  _exit(result < 0);
}
