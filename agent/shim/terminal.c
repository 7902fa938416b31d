/* Terminals: made by whoever will run on one, in the container's own devpts; the other end goes to the process that cloned it. */
#include "shim.h"
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

/* A message of the ladder, and one descriptor with it. */
struct ladder_message {
  struct iovec part;
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int))];
  } control;
  struct msghdr header;
};

static struct msghdr *prepare(struct ladder_message *ladder, struct sync_message *message) {
  *ladder = (struct ladder_message){.part = {message, sizeof *message}};
  ladder->header = (struct msghdr){.msg_iov = &ladder->part, .msg_iovlen = 1, .msg_control = &ladder->control,
                                   .msg_controllen = sizeof ladder->control};
  return &ladder->header;
}

static int send_terminal(int fd) {
  struct sync_message message = {.kind = SYNC_TERMINAL};
  struct ladder_message ladder;
  struct msghdr *header = prepare(&ladder, &message);
  ladder.control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
  memcpy(CMSG_DATA(&ladder.control.header), &fd, sizeof fd);
  return CHECK(sendmsg(sync_fd, header, MSG_NOSIGNAL));
}

int receive_sync(int fd, struct sync_message *message, int *terminal, int flags) {
  struct ladder_message ladder;
  struct msghdr *header = prepare(&ladder, message);
  int length = TRY(CHECK(recvmsg(fd, header, flags | MSG_CMSG_CLOEXEC)));
  if (length != sizeof *message || message->kind != SYNC_TERMINAL) return length;
  if (header->msg_controllen >= CMSG_LEN(sizeof *terminal)) memcpy(terminal, CMSG_DATA(&ladder.control.header), sizeof *terminal);
  else *message = (struct sync_message){SYNC_FAILED, 0, EMFILE}; /* there was no descriptor left for it */
  return length;
}

/*
 * A terminal of the container's own devpts: whatever else lies at that path is refused, and the near end is had by
 * descriptor (TIOCGPTPEER), not by a name that the container could have changed. By the same descriptor it is bound at
 * /dev/console, where a container's own terminal is looked for.
 */
int op_open_terminal(struct reader *reader) {
  struct stat status;
  struct statfs system;
  struct winsize size = {.ws_row = (unsigned short)get_u32(reader), .ws_col = (unsigned short)get_u32(reader)};
  bool console = get_u32(reader);
  int unlocked = 0;
  if (reader->bad) return -EBADMSG;
  cleanup_close int place = TRY(open_in_root("/dev/pts/ptmx", O_PATH));
  TRY(CHECK(fstat(place, &status)));
  TRY(CHECK(fstatfs(place, &system)));
  if (!S_ISCHR(status.st_mode) || status.st_rdev != makedev(5, 2) || system.f_type != DEVPTS_SUPER_MAGIC) return -EXDEV;
  cleanup_close int master = TRY(open_in_root("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK));
  TRY(CHECK(fstatfs(master, &system)));
  if (system.f_type != DEVPTS_SUPER_MAGIC) return -EXDEV;
  TRY(CHECK(ioctl(master, TIOCSPTLCK, &unlocked)));
  cleanup_close int slave = TRY(CHECK(ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC)));
  TRY(CHECK(ioctl(master, TIOCSWINSZ, &size)));
  if (console) TRY(bind_descriptor(slave, "/dev/console"));
  for (int fd = 0; fd < 3; fd++) TRY(CHECK(dup2(slave, fd)));
  TRY(CHECK(ioctl(0, TIOCSCTTY, 0)));
  return send_terminal(master);
}
