/* Netlink: the bytes come whole from TypeScript; here they are only sent and their acknowledgement awaited. */
#include "shim.h"
#include <linux/netlink.h>
#include <sys/socket.h>

int host_netlink_fd = -1;

int netlink_open(int protocol) {
  return CHECK(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));
}

/* Gathers datagrams until one ends the exchange; *used counts their bytes, *refusal is the kernel's negative errno. */
static int gather(int fd, uint8_t *answer, size_t size, size_t *used, int *refusal) {
  while (true) {
    if (size - *used < NLMSG_HDRLEN) return -EMSGSIZE;
    ssize_t length = recv(fd, answer + *used, size - *used, MSG_TRUNC);
    if (length < 0 && errno == EINTR) continue;
    if (length < 0) return -errno;
    if ((size_t)length > size - *used) return -EMSGSIZE;
    struct nlmsghdr *header = (struct nlmsghdr *)(answer + *used);
    *used += NLMSG_ALIGN((size_t)length);
    for (size_t left = (size_t)length; NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
      if (header->nlmsg_type == NLMSG_ERROR) *refusal = ((struct nlmsgerr *)NLMSG_DATA(header))->error;
      if (header->nlmsg_type == NLMSG_ERROR || header->nlmsg_type == NLMSG_DONE) return 0;
    }
  }
}

int netlink_acknowledged(int fd, const void *message, size_t length) {
  uint8_t answer[1024] __attribute__((aligned(8)));
  size_t used = 0;
  int refusal = 0;
  TRY(CHECK(send(fd, message, length, 0)));
  TRY(gather(fd, answer, sizeof answer, &used, &refusal));
  return refusal;
}

int netlink_transact(int protocol, const void *message, size_t length, uint8_t *answer, size_t size) {
  cleanup_close int fd = TRY(netlink_open(protocol));
  size_t used = 0;
  int capped = 1, refusal;
  setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &capped, sizeof capped);
  setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &capped, sizeof capped);
  TRY(CHECK(send(fd, message, length, 0)));
  TRY(gather(fd, answer, size, &used, &refusal));
  return (int)used;
}

int op_netlink(struct reader *reader) {
  static int container_fd = -1;
  bool container = get_u32(reader);
  uint32_t length;
  const uint8_t *message = get_bytes(reader, &length);
  if (reader->bad) return -EBADMSG;
  if (container && container_fd < 0) container_fd = TRY(netlink_open(NETLINK_ROUTE));
  return netlink_acknowledged(container ? container_fd : host_netlink_fd, message, length);
}
