/*
 * `swarm-shim session`: one command in a container with somebody at its streams. A process of its own, so that nothing of
 * it is in the supervisor; it goes with the agent that started it, and takes the command along.
 *
 *   agent                   session                       first process (ladder of supervisor.c)
 *     | OPEN {pid} --------->| pidfd_open
 *     |<-- OK ---------------|
 *     |   (asks the supervisor whether that pid is still the container's)
 *     | RUN {input, ops} --->|------------ spawn --------------->| enters the container
 *     |                      |<-- TERMINAL, its descriptor ------| open-terminal, if it has one
 *     |<-- OUTPUT: it runs --|<-- end of file (exec) ------------| or FAILED {index, errno}
 *     | 0 ---------- bytes ->|-- pipe or terminal -------------->|
 *     |<- 1, 2 ----- bytes --|<- pipes or terminal --------------|
 *     | RESIZE, SIGNAL ----->|
 *     |<-- EXITED -----------|<- pidfd becomes readable ---------| ends; what it left in the background stays
 *     x end of file -------->| kills the whole session
 *
 * Descriptors 0, 1 and 2 are the command's bytes, 3 is the control channel. In each direction at most one buffer is held:
 * who does not read makes the other side wait.
 */
#include "shim.h"
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { CONTROL_FD = 3, REQUEST_MAX = 4 << 20, BUFFER_BYTES = 32 * 1024 };
enum request { REQUEST_OPEN = 1, REQUEST_RUN, REQUEST_RESIZE, REQUEST_SIGNAL };
enum { INPUT, OUTPUT, ERRORS, FLOWS };
/* Rounds of a millisecond in which all processes of a session must have died: they fork no faster than they are killed. */
enum { KILL_ROUNDS = 200 };
/* Buffers that are read after the command's end: what a pipe holds (1 MiB, /proc/sys/fs/pipe-max-size), and more. */
enum { LAST_BUFFERS = 64 };

/* Bytes on their way from one descriptor to another; both are closed at the end. */
struct flow {
  int from, to; /* -1 = over, or not there yet */
  size_t at, have;
  unsigned read_last;
  uint8_t bytes[BUFFER_BYTES];
};

static struct flow flows[FLOWS] = {{.from = -1, .to = -1}, {.from = -1, .to = -1}, {.from = -1, .to = -1}};
static struct process command = {-1, -1, -1, {-1, -1}, -1};
static int terminal = -1;
static uint32_t run_id;
static bool started, failed;

static void end_flow(struct flow *flow) {
  close_fd(&flow->from);
  close_fd(&flow->to);
  flow->from = flow->to = -1;
  flow->at = flow->have = 0;
}

/* Moves one buffer on, as far as it goes without waiting. `last`: what is not there now is not waited for. */
static void move(struct flow *flow, bool last) {
  ssize_t count;
  if (flow->from < 0 || flow->to < 0) return;
  if (flow->at == flow->have) {
    /* A process that it left behind may hold its pipes, and write for ever. */
    if (last && flow->read_last++ == LAST_BUFFERS) return end_flow(flow);
    count = read(flow->from, flow->bytes, sizeof flow->bytes);
    if (count < 0 && (errno == EINTR || (errno == EAGAIN && !last))) return;
    if (count <= 0) return end_flow(flow); /* a terminal says EIO when nobody has it open any more */
    flow->at = 0;
    flow->have = (size_t)count;
  }
  count = write(flow->to, flow->bytes + flow->at, flow->have - flow->at);
  if (count < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (count < 0) return end_flow(flow); /* nobody reads it: whoever sends it finds the way closed */
  flow->at += (size_t)count;
}

/* Every process that is still in the command's session, however deep; who made a session of its own is let go. */
static void kill_session(void) {
  char text[8192];
  for (int round = 0; round < KILL_ROUNDS && *cgroup.procs; round++) {
    pid_t pid = 0;
    bool found = false;
    cleanup_close int fd = open(cgroup.procs, O_RDONLY | O_CLOEXEC);
    for (ssize_t length; fd >= 0 && (length = read(fd, text, sizeof text)) > 0;)
      for (char *at = text; at < text + length; at++) {
        if (*at >= '0' && *at <= '9') {
          pid = pid * 10 + (*at - '0');
          continue;
        }
        /* Its leader stays until none is left that it could be asked for. */
        if (pid > 0 && pid != command.pid && getsid(pid) == command.pid && kill(pid, SIGKILL) == 0) found = true;
        pid = 0;
      }
    if (!found) break;
    usleep(1000);
  }
  kill(-command.pid, SIGKILL);
  kill(command.pid, SIGKILL);
}

static void reply(uint32_t id, uint32_t kind, const void *payload, size_t length) {
  send_frame(CONTROL_FD, id, kind, payload, length);
}

static void reply_failure(uint32_t id, uint32_t stage, uint32_t index, int error) {
  struct failure failure = {stage, index, (uint32_t)error};
  reply(id, ANSWER_ERROR, &failure, sizeof failure);
}

/* The ladder: the terminal comes, an operation fails, or exec closes it. */
static void read_ladder(void) {
  struct sync_message message = {0};
  int length = receive_sync(command.sync_fd, &message, &terminal, MSG_DONTWAIT);
  if (length < 0) return;
  if (length == sizeof message && message.kind == SYNC_TERMINAL) {
    flows[OUTPUT].from = fcntl(terminal, F_DUPFD_CLOEXEC, 10);
    flows[INPUT].to = fcntl(terminal, F_DUPFD_CLOEXEC, 10);
    return;
  }
  close_fd(&command.sync_fd);
  command.sync_fd = -1;
  if (length == sizeof message) reply_failure(run_id, STAGE_CONTAINER, message.index, (int)message.error);
  else reply(run_id, ANSWER_OUTPUT, NULL, 0);
  failed = length == sizeof message;
  started = !failed;
}

static int run(struct reader *request) {
  struct failure failure = {0};
  bool with_input = get_u32(request), with_terminal = get_u32(request);
  get_cgroup(request);
  struct reader ops = get_reader(request);
  if (request->bad) return -EBADMSG;
  keeps_input = with_input || with_terminal;
  TRY(spawn(0, ops, &command, &failure));
  flows[OUTPUT].to = 1;
  if (with_input) flows[INPUT].from = 0;
  if (with_terminal) {
    close(command.input), close(command.output[0]), close(command.output[1]);
    return 0;
  }
  flows[ERRORS].to = 2;
  flows[OUTPUT].from = command.output[0];
  flows[ERRORS].from = command.output[1];
  if (!with_input) close(command.input);
  else flows[INPUT].to = command.input;
  return with_input ? CHECK(fcntl(command.input, F_SETFL, O_NONBLOCK)) : 0;
}

/* One frame of the agent's, which writes them whole; -EPIPE: it has gone. */
static int read_request(void) {
  uint32_t length;
  TRY(read_all(CONTROL_FD, &length, sizeof length));
  if (length < 8 || length > REQUEST_MAX) return -EBADMSG;
  uint8_t *frame = map_memory(length); /* stays: the operations are read from it by the command's process */
  if (!frame) return -ENOMEM;
  TRY(read_all(CONTROL_FD, frame, length));
  struct reader request = {frame, frame + length, false};
  uint32_t id = get_u32(&request), kind = get_u32(&request);
  int result = -ENOSYS;
  if (kind == REQUEST_OPEN && container_pidfd < 0) {
    result = container_pidfd = CHECK(syscall(SYS_pidfd_open, get_u32(&request), 0));
  } else if (kind == REQUEST_RUN && container_pidfd >= 0 && command.pid < 0) {
    run_id = id;
    result = run(&request);
    if (result >= 0) return 0;
    reply_failure(id, STAGE_SUPERVISOR, 0, -result);
    return result;
  } else if (kind == REQUEST_RESIZE) {
    struct winsize size = {.ws_row = (unsigned short)get_u32(&request), .ws_col = (unsigned short)get_u32(&request)};
    result = terminal < 0 ? 0 : CHECK(ioctl(terminal, TIOCSWINSZ, &size));
  } else if (kind == REQUEST_SIGNAL) {
    result = command.pid < 0 ? -ESRCH : CHECK(kill(command.pid, (int)get_u32(&request)));
  }
  if (result < 0) reply_failure(id, STAGE_SUPERVISOR, 0, -result);
  else reply(id, ANSWER_OK, NULL, 0);
  return 0;
}

static struct pollfd waiting(const struct flow *flow) {
  if (flow->from < 0 || flow->to < 0) return (struct pollfd){.fd = -1};
  if (flow->at == flow->have) return (struct pollfd){.fd = flow->from, .events = POLLIN};
  return (struct pollfd){.fd = flow->to, .events = POLLOUT};
}

/* Until the command has ended and all that it wrote is with the agent. Negative: the agent has gone. */
static int serve(void) {
  bool ended = false;
  while (!ended || flows[OUTPUT].from >= 0 || flows[ERRORS].from >= 0) {
    struct pollfd ready[3 + FLOWS] = {{.fd = CONTROL_FD, .events = POLLIN},
                                      {.fd = command.sync_fd, .events = POLLIN},
                                      {.fd = ended ? -1 : command.pidfd, .events = POLLIN}};
    for (int index = 0; index < FLOWS; index++) ready[3 + index] = waiting(&flows[index]);
    bool idle = false;
    for (int index = OUTPUT; index < FLOWS; index++) idle |= flows[index].from >= 0 && flows[index].at == flows[index].have;
    if (poll(ready, 3 + FLOWS, ended && idle ? 0 : -1) < 0) continue;
    if (ready[1].revents) read_ladder();
    if (ready[2].revents) {
      ended = true;
      for (int message = 0; message < 2 && command.sync_fd >= 0; message++) read_ladder();
      end_flow(&flows[INPUT]);
    }
    for (int index = 0; index < FLOWS; index++)
      if (ready[3 + index].revents || ended) move(&flows[index], ended);
    if (ready[0].revents) TRY(read_request());
  }
  return 0;
}

int session_main(void) {
  setsid(); /* a terminal's Ctrl-C is the agent's business */
  for (int number = 1; number < 32; number++) signal(number, SIG_DFL);
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* before anything of it enters the container */
  prctl(PR_SET_NAME, "swarm-session", 0, 0, 0);
  TRY(CHECK(syscall(SYS_close_range, CONTROL_FD + 1u, ~0u, 0u)));
  for (int fd = 0; fd < 3; fd++) TRY(CHECK(fcntl(fd, F_SETFL, O_NONBLOCK)));
  int result = serve();
  uint32_t status[2] = {0};
  int how = 0;
  if (result < 0 && command.pid > 0) kill_session();
  while (command.pid > 0 && waitpid(command.pid, &how, 0) < 0 && errno == EINTR) continue;
  status[1] = WIFSIGNALED(how) ? (uint32_t)WTERMSIG(how) : 0;
  status[0] = status[1] ? 128 + status[1] : (uint32_t)WEXITSTATUS(how);
  if (result == 0 && !failed) reply(run_id, ANSWER_EXITED, status, sizeof status);
  return 0;
}
