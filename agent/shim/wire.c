/* The length-prefixed binary and its frames. */
#include "shim.h"
#include <poll.h>
#include <sys/mman.h>
#include <sys/uio.h>

static const uint8_t *take(struct reader *reader, size_t length) {
  if (reader->bad || (size_t)(reader->end - reader->at) < length) {
    reader->bad = true;
    return NULL;
  }
  const uint8_t *at = reader->at;
  reader->at += length;
  return at;
}

uint32_t get_u32(struct reader *reader) {
  uint32_t value = 0;
  const uint8_t *at = take(reader, sizeof value);
  if (at) memcpy(&value, at, sizeof value);
  return value;
}

uint64_t get_u64(struct reader *reader) {
  uint64_t low = get_u32(reader), high = get_u32(reader);
  return high << 32 | low;
}

const uint8_t *get_bytes(struct reader *reader, uint32_t *length) {
  *length = get_u32(reader);
  return take(reader, *length);
}

const char *get_string(struct reader *reader) {
  uint32_t length = get_u32(reader);
  const char *text = (const char *)take(reader, (size_t)length + 1);
  if (text && strnlen(text, (size_t)length + 1) == length) return text;
  reader->bad = true;
  return "";
}

struct reader get_reader(struct reader *reader) {
  uint32_t length;
  const uint8_t *at = get_bytes(reader, &length);
  return at ? (struct reader){.at = at, .end = at + length} : (struct reader){.bad = true};
}

int read_all(int fd, void *buffer, size_t length) {
  for (size_t have = 0; have < length;) {
    ssize_t count = read(fd, (char *)buffer + have, length - have);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return -errno;
    if (count == 0) return -EPIPE;
    have += (size_t)count;
  }
  return 0;
}

int send_frame(int fd, uint32_t id, uint32_t kind, const void *payload, size_t length) {
  uint32_t header[3] = {(uint32_t)length + 8, id, kind};
  struct iovec parts[2] = {{header, sizeof header}, {(void *)payload, length}};
  for (struct iovec *part = parts; part < parts + 2;) {
    ssize_t count = writev(fd, part, (int)(parts + 2 - part));
    if (count < 0 && errno == EAGAIN) {
      /* A client of the supervisor that does not read for this long loses its answer, not the container its log. */
      struct pollfd writable = {.fd = fd, .events = POLLOUT};
      if (poll(&writable, 1, 100) <= 0) return -EAGAIN;
      continue;
    }
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return -errno;
    for (; part < parts + 2 && (size_t)count >= part->iov_len; part++) count -= (ssize_t)part->iov_len;
    if (part == parts + 2) break;
    part->iov_base = (char *)part->iov_base + count;
    part->iov_len -= (size_t)count;
  }
  return 0;
}

void *map_memory(size_t length) {
  void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? NULL : memory;
}
