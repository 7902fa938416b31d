/*
 * The container's log in CRI form, as kubelet's and containerd's readers know it:
 *   2026-11-23T13:25:00.123456789Z stdout F text     F = a full line, P = 16 KiB of a line that goes on
 * Rotated by size: file, file.1 … file.N. A full disk drops lines; it never blocks the container.
 */
#include "shim.h"
#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>

enum { PREFIX_BYTES = 40, LINES_PER_WRITE = 32 };
static struct {
  uint8_t text[LINE_MAX_BYTES];
  size_t have;
} streams[2];
static const char *log_path;
static uint64_t size_max, size;
static uint32_t files_max;
static int log_fd = -1;

static int open_log(void) {
  struct stat status;
  log_fd = TRY(CHECK(open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)));
  TRY(CHECK(fstat(log_fd, &status)));
  size = (uint64_t)status.st_size;
  return 0;
}

/* An empty path drops the log. */
int log_open(struct reader *plan) {
  log_path = get_string(plan);
  size_max = get_u64(plan);
  files_max = get_u32(plan);
  if (plan->bad) return -EBADMSG;
  return *log_path ? open_log() : 0;
}

static void rotate(void) {
  char from[4096], to[4096];
  close(log_fd);
  if (files_max < 2) unlink(log_path);
  for (uint32_t number = files_max; number-- > 1;) {
    snprintf(to, sizeof to, "%s.%u", log_path, number);
    snprintf(from, sizeof from, number > 1 ? "%s.%u" : "%s", log_path, number - 1);
    rename(from, to);
  }
  if (open_log() < 0) log_fd = -1;
}

static void write_digits(char *at, int count, uint64_t value) {
  while (count-- > 0) {
    at[count] = (char)('0' + value % 10);
    value /= 10;
  }
}

/* RFC 3339 in UTC by hand (days to civil date, Howard Hinnant): gmtime would pull the time zone code in. */
static void write_prefix(char *prefix, unsigned stream) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  uint64_t seconds = (uint64_t)now.tv_sec, day = seconds / 86400 + 719468, second = seconds % 86400;
  uint64_t era = day / 146097, of_era = day % 146097;
  uint64_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
  uint64_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  uint64_t shifted = (5 * of_year + 2) / 153, month = shifted < 10 ? shifted + 3 : shifted - 9;
  memcpy(prefix, "YYYY-MM-DDThh:mm:ss.nnnnnnnnnZ stdxxx F ", PREFIX_BYTES);
  memcpy(prefix + 34, stream ? "err" : "out", 3);
  write_digits(prefix, 4, year_of_era + era * 400 + (month <= 2));
  write_digits(prefix + 5, 2, month);
  write_digits(prefix + 8, 2, of_year - (153 * shifted + 2) / 5 + 1);
  write_digits(prefix + 11, 2, second / 3600);
  write_digits(prefix + 14, 2, second / 60 % 60);
  write_digits(prefix + 17, 2, second % 60);
  write_digits(prefix + 20, 9, (uint64_t)now.tv_nsec);
}

static void write_lines(struct iovec *parts, int count) {
  uint64_t length = 0;
  for (int index = 0; index < count; index++) length += parts[index].iov_len;
  if (log_fd >= 0 && size && size_max && size + length > size_max) rotate();
  if (log_fd < 0 && (!*log_path || open_log() < 0)) return;
  ssize_t written = writev(log_fd, parts, count);
  if (written == (ssize_t)length) size += length;
  else if (written > 0 && ftruncate(log_fd, (off_t)size) < 0) size += (uint64_t)written; /* no half line, if it can be */
}

/* Writes the whole lines of a stream's buffer; what is left of the last one moves to its front. */
static void write_stream(unsigned stream, bool ended) {
  struct iovec parts[3 * LINES_PER_WRITE];
  char full[PREFIX_BYTES], partial[PREFIX_BYTES];
  int used = 0;
  uint8_t *at = streams[stream].text, *end = at + streams[stream].have;
  write_prefix(full, stream);
  memcpy(partial, full, sizeof full);
  partial[38] = 'P';
  while (at < end) {
    uint8_t *newline = memchr(at, '\n', (size_t)(end - at));
    bool whole = at == streams[stream].text && end == at + LINE_MAX_BYTES;
    if (!newline && !whole && !ended) break;
    uint8_t *stop = newline ? newline : end;
    parts[used++] = (struct iovec){newline || ended ? full : partial, PREFIX_BYTES};
    parts[used++] = (struct iovec){at, (size_t)(stop - at)};
    parts[used++] = (struct iovec){"\n", 1};
    at = newline ? newline + 1 : end;
    if (used == 3 * LINES_PER_WRITE) {
      write_lines(parts, used);
      used = 0;
    }
  }
  if (used) write_lines(parts, used);
  streams[stream].have = (size_t)(end - at);
  memmove(streams[stream].text, at, streams[stream].have);
}

void log_end(unsigned stream) {
  write_stream(stream, true);
}

int log_pump(int fd, unsigned stream) {
  size_t have = streams[stream].have;
  ssize_t count = read(fd, streams[stream].text + have, LINE_MAX_BYTES - have);
  if (count < 0 && errno == EINTR) return 1;
  if (count < 0 && errno == EAGAIN) return -EAGAIN;
  if (count > 0) streams[stream].have += (size_t)count;
  if (log_fd < 0 && !*log_path) streams[stream].have = 0;
  write_stream(stream, count <= 0);
  return count > 0;
}
