/* What the tests of agent/network need from C, which the shim does in life:
 *   helper serve               frames on stdin {u32 protocol, u32 length, message} -> stdout {u32 length, answer}
 *   helper container CMD ARGS  a new network namespace, operations from stdin {u32 kind, u32 length, bytes}, then CMD;
 *                              kind 0: netlink in the container, 1: netlink on the host, 2: "sysctl/path=value".
 *   helper sctp-serve PORT NAME   answers each SCTP association with its name and the address that it comes from
 *   helper sctp-ask HOST PORT     prints what the other side says
 *   helper stray-serve PORT       answers each TCP connection, once it hears something, with "whole", and just before that
 *                                 with a segment of the same connection that is far out of its window
 *   helper stray-ask HOST PORT    sends such a segment, then asks, and prints what the other side says */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HOST_NETNS_FD = 250, ANSWER_MAX = 4 << 20 };
static uint8_t answer[ANSWER_MAX], message[1 << 20];

static int read_all(void *data, size_t length) {
  for (size_t used = 0; used < length;) {
    ssize_t count = read(0, (uint8_t *)data + used, length - used);
    if (count <= 0) return -1;
    used += (size_t)count;
  }
  return 0;
}

static int exchange(int fd, size_t length, size_t *used) {
  *used = 0;
  if (send(fd, message, length, 0) < 0) return -errno;
  while (1) {
    ssize_t count = recv(fd, answer + *used, sizeof answer - *used, 0);
    if (count < 0) return -errno;
    struct nlmsghdr *header = (void *)(answer + *used);
    *used += NLMSG_ALIGN((size_t)count);
    for (size_t left = (size_t)count; NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
      if (header->nlmsg_type == NLMSG_ERROR) return ((struct nlmsgerr *)NLMSG_DATA(header))->error;
      if (header->nlmsg_type == NLMSG_DONE) return 0;
    }
  }
}

static int set_sysctl(char *assignment) {
  char path[256], *value = strchr(assignment, '=');
  *value++ = 0;
  snprintf(path, sizeof path, "/proc/sys/%s", assignment);
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  int result = write(fd, value, strlen(value)) < 0 ? -errno : 0;
  close(fd);
  return result;
}

static int serve(void) {
  uint32_t head[2];
  while (read_all(head, sizeof head) == 0 && head[1] <= sizeof message && read_all(message, head[1]) == 0) {
    size_t used;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, (int)head[0]);
    exchange(fd, head[1], &used);
    close(fd);
    uint32_t length = (uint32_t)used;
    if (write(1, &length, sizeof length) < 0) return 1;
    for (size_t sent = 0; sent < used;) {
      ssize_t count = write(1, answer + sent, used - sent);
      if (count < 0) return 1;
      sent += (size_t)count;
    }
  }
  return 0;
}

static double now_ms(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static int container(char **command) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  int sockets[2] = {-1, socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)};
  dup3(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), HOST_NETNS_FD, O_CLOEXEC);
  if (unshare(CLONE_NEWNET) < 0) return perror("unshare"), 1;
  sockets[0] = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  uint32_t head[2];
  double spent = 0;
  for (int index = 0; read_all(head, sizeof head) == 0 && read_all(message, head[1]) == 0; index++) {
    size_t used;
    double start = now_ms();
    message[head[1]] = 0;
    int result = head[0] == 2 ? set_sysctl((char *)message) : exchange(sockets[head[0]], head[1], &used);
    spent += now_ms() - start;
    if (result < 0) return printf("{\"index\":%d,\"errno\":%d}\n", index, -result), 1;
  }
  printf("{\"pid\":%d,\"ms\":%.3f}\n", getpid(), spent);
  fflush(stdout);
  execvp(command[0], command);
  return perror(command[0]), 127;
}

static int sctp_socket(const char *address, const char *port, struct sockaddr_in *place) {
  *place = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
  inet_pton(AF_INET, address, &place->sin_addr);
  return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_SCTP);
}

static int sctp_serve(const char *port, const char *name) {
  struct sockaddr_in place, from;
  int fd = sctp_socket("0.0.0.0", port, &place);
  if (bind(fd, (void *)&place, sizeof place) < 0 || listen(fd, 16) < 0) return perror("sctp-serve"), 1;
  while (1) {
    socklen_t length = sizeof from;
    int client = accept(fd, (void *)&from, &length);
    if (client < 0) continue;
    char text[64];
    int size = snprintf(text, sizeof text, "%s %s", name, inet_ntoa(from.sin_addr));
    if (write(client, text, (size_t)size) < 0) perror("sctp-serve");
    close(client);
  }
}

static int sctp_ask(const char *host, const char *port) {
  struct sockaddr_in place;
  char text[64];
  int fd = sctp_socket(host, port, &place);
  alarm(3);
  if (connect(fd, (void *)&place, sizeof place) < 0) return perror("sctp-ask"), 1;
  ssize_t size = read(fd, text, sizeof text);
  return size > 0 && write(1, text, (size_t)size) == size ? 0 : 1;
}

static uint32_t sum_words(const void *data, size_t length, uint32_t sum) {
  for (size_t at = 0; at + 1 < length; at += 2) sum += (uint32_t)(((const uint8_t *)data)[at] << 8 | ((const uint8_t *)data)[at + 1]);
  return sum;
}

static uint32_t sequence_of(int fd, int queue) {
  uint32_t sequence = 0;
  socklen_t size = sizeof sequence;
  if (setsockopt(fd, SOL_TCP, TCP_REPAIR_QUEUE, &queue, sizeof queue) < 0) perror("TCP_REPAIR_QUEUE");
  if (getsockopt(fd, SOL_TCP, TCP_QUEUE_SEQ, &sequence, &size) < 0) perror("TCP_QUEUE_SEQ");
  return sequence;
}

/* Sends a segment from one end of an IPv4 connection to the other, a quarter of the sequence space ahead. */
static int send_stray(int fd) {
  struct sockaddr_in own, other;
  socklen_t size = sizeof own;
  if (getsockname(fd, (void *)&own, &size) < 0 || getpeername(fd, (void *)&other, &size) < 0) return -1;
  int on = TCP_REPAIR_ON, off = TCP_REPAIR_OFF_NO_WP;
  if (setsockopt(fd, SOL_TCP, TCP_REPAIR, &on, sizeof on) < 0) return -1;
  uint32_t received = sequence_of(fd, 1), sent = sequence_of(fd, 2);
  if (setsockopt(fd, SOL_TCP, TCP_REPAIR, &off, sizeof off) < 0) return -1;
  struct { struct iphdr ip; struct tcphdr tcp; char data[4]; } packet = {0};
  packet.ip = (struct iphdr){.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_TCP, .tot_len = htons(sizeof packet),
                             .saddr = own.sin_addr.s_addr, .daddr = other.sin_addr.s_addr};
  packet.tcp = (struct tcphdr){.source = own.sin_port, .dest = other.sin_port, .seq = htonl(sent + (1u << 30)),
                               .ack_seq = htonl(received), .doff = 5, .ack = 1, .psh = 1, .window = htons(1024)};
  size_t length = sizeof packet - sizeof packet.ip;
  uint32_t sum = sum_words(&packet.ip.saddr, 8, sum_words(&packet.tcp, length, IPPROTO_TCP + (uint32_t)length));
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  packet.tcp.check = htons((uint16_t)~sum);
  int raw = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
  ssize_t count = sendto(raw, &packet, sizeof packet, 0, (void *)&other, sizeof other);
  close(raw);
  return count < 0 ? -1 : 0;
}

static int stray_serve(const char *port) {
  struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
  int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, (void *)&place, sizeof place) < 0 || listen(fd, 16) < 0) return perror("stray-serve"), 1;
  while (1) {
    char heard[16];
    int client = accept(fd, NULL, NULL);
    if (client < 0) return perror("accept"), 1;
    if (read(client, heard, sizeof heard) > 0) {
      if (send_stray(client) < 0) perror("stray");
      /* What it calls forth must be here before the rest is sent. */
      nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
      if (send(client, "whole", 5, MSG_NOSIGNAL) < 0) perror("stray-serve");
    }
    close(client);
  }
}

static int stray_ask(const char *host, const char *port) {
  struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
  char heard[64];
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (inet_pton(AF_INET, host, &place.sin_addr) != 1) return 2;
  if (connect(fd, (void *)&place, sizeof place) < 0 || send_stray(fd) < 0) return perror("stray-ask"), 1;
  nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
  if (send(fd, "?", 1, MSG_NOSIGNAL) < 0) return perror("stray-ask"), 1;
  ssize_t count;
  while ((count = read(fd, heard, sizeof heard)) > 0)
    if (write(1, heard, (size_t)count) < 0) return 1;
  return count < 0 ? (perror("stray-ask"), 1) : 0;
}

int main(int argc, char **argv) {
  if (argc == 2 && !strcmp(argv[1], "serve")) return serve();
  if (argc > 2 && !strcmp(argv[1], "container")) return container(argv + 2);
  if (argc == 4 && !strcmp(argv[1], "sctp-serve")) return sctp_serve(argv[2], argv[3]);
  if (argc == 4 && !strcmp(argv[1], "sctp-ask")) return sctp_ask(argv[2], argv[3]);
  if (argc == 3 && !strcmp(argv[1], "stray-serve")) return stray_serve(argv[2]);
  if (argc == 4 && !strcmp(argv[1], "stray-ask")) return stray_ask(argv[2], argv[3]);
  return 2;
}
