/*
 * The supervisor's loop: control.sock in the container's state directory (mode 0700; only uid 0 is served, never an
 * abstract socket: CVE-2020-15257), the log pipes, exec'd processes, and the container's end.
 *
 * Requests: START, SIGNAL {number, all}, EXEC {timeoutMs, maxOutputBytes, ops}, STATE. Each is answered under its id with
 * OK or ERROR; an EXEC with any number of OUTPUT {stream, bytes} and then EXITED or ERROR. Id 0 is the event EXITED.
 */
#include "shim.h"
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

enum request { REQUEST_START = 1, REQUEST_SIGNAL, REQUEST_EXEC, REQUEST_STATE };
/* More clients than the agent ever has; a further one is turned away. More execs are refused with EAGAIN. */
enum { CLIENTS_MAX = 16, EXECS_MAX = 8, REQUEST_MAX = 4 << 20 };
enum { SLOT_LISTEN, SLOT_SYNC, SLOT_CONTAINER, SLOT_LOGS, SLOT_CLIENTS = SLOT_LOGS + 2,
       SLOT_EXECS = SLOT_CLIENTS + CLIENTS_MAX, SLOT_COUNT = SLOT_EXECS + 3 * EXECS_MAX };
/* Of 16 KiB each: what a pipe holds (1 MiB, /proc/sys/fs/pipe-max-size), and more. */
enum { LAST_ROUNDS = 256 };
enum { FLAG_OOM = 1, FLAG_TIMED_OUT = 2, FLAG_TRUNCATED = 4 };

struct client {
  int fd;
  uint32_t have, length; /* of the frame after its length field */
  uint8_t *frame;
};
struct exec {
  struct process process; /* no pid = this slot is free */
  int client;             /* -1 = gone */
  uint32_t id, left, flags;
  int64_t deadline_ms; /* 0 = none */
  bool blocked;        /* its client does not read: its pipes wait */
};
struct exit_status {
  uint32_t code, signal, flags;
  uint64_t seconds;
  uint32_t nanoseconds;
} __attribute__((packed));

static struct client clients[CLIENTS_MAX];
static struct exec execs[EXECS_MAX];
static struct pollfd slots[SLOT_COUNT];
static struct process container;
static enum container_status status;
static int listen_fd = -1, directory_fd = -1, start_client = -1;
static uint32_t start_id;

int control_listen(const char *state_directory) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  directory_fd = TRY(CHECK(open(state_directory, O_PATH | O_DIRECTORY | O_CLOEXEC)));
  listen_fd = TRY(CHECK(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)));
  /* By descriptor: the path may be longer than sun_path. */
  snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/control.sock", directory_fd);
  control_unlink();
  mode_t mask = umask(077);
  int result = CHECK(bind(listen_fd, (struct sockaddr *)&address, sizeof address));
  umask(mask);
  TRY(result);
  return CHECK(listen(listen_fd, 64));
}

void control_unlink(void) {
  if (directory_fd >= 0) unlinkat(directory_fd, "control.sock", 0);
}

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void reply(int client, uint32_t id, uint32_t kind, const void *payload, size_t length) {
  if (client < 0 || clients[client].fd < 0) return;
  /* Half a frame may have gone: no further one would be understood. */
  if (send_frame(clients[client].fd, id, kind, payload, length) < 0) shutdown(clients[client].fd, SHUT_RDWR);
}

static void reply_error(int client, uint32_t id, uint32_t stage, uint32_t index, int error) {
  struct failure failure = {stage, index, (uint32_t)error};
  reply(client, id, ANSWER_ERROR, &failure, sizeof failure);
}

static struct exit_status reap_process(pid_t pid, uint32_t flags) {
  int result = 0;
  struct timespec now;
  while (waitpid(pid, &result, 0) < 0 && errno == EINTR) continue;
  clock_gettime(CLOCK_REALTIME, &now);
  uint32_t signal = WIFSIGNALED(result) ? (uint32_t)WTERMSIG(result) : 0;
  return (struct exit_status){signal ? 128 + signal : (uint32_t)WEXITSTATUS(result), signal, flags,
                              (uint64_t)now.tv_sec, (uint32_t)now.tv_nsec};
}

/* Passes on what one pipe of an exec holds; false when it is drained, or its client must read first. */
static bool pump_exec(struct exec *exec, unsigned stream) {
  struct { uint32_t stream; uint8_t bytes[PROCESS_MAX_OUTPUT]; } output = {.stream = stream + 1};
  struct pollfd writable = {.fd = exec->client < 0 ? -1 : clients[exec->client].fd, .events = POLLOUT};
  if (exec->client >= 0 && poll(&writable, 1, 0) == 0) return !(exec->blocked = true);
  ssize_t count = read(exec->process.output[stream], output.bytes, sizeof output.bytes);
  if (count < 0) return errno == EINTR;
  if (count == 0) {
    close(exec->process.output[stream]);
    exec->process.output[stream] = -1;
    return false;
  }
  if (count > exec->left) exec->flags |= FLAG_TRUNCATED;
  if (count > exec->left) count = exec->left;
  exec->left -= (uint32_t)count;
  if (count) reply(exec->client, exec->id, ANSWER_OUTPUT, &output, sizeof output.stream + (size_t)count);
  return true;
}

/* Its process has ended: the rest of its output (a child of it may hold the pipe: nobody waits for that), its code. */
static void finish_exec(struct exec *exec) {
  struct sync_message failed;
  for (unsigned stream = 0; stream < 2; stream++)
    for (int round = 0; exec->process.output[stream] >= 0 && round < 64 && pump_exec(exec, stream); round++) continue;
  struct exit_status ended = reap_process(exec->process.pid, exec->flags);
  if (recv(exec->process.sync_fd, &failed, sizeof failed, MSG_DONTWAIT) == sizeof failed)
    reply_error(exec->client, exec->id, STAGE_CONTAINER, failed.index, (int)failed.error);
  else reply(exec->client, exec->id, ANSWER_EXITED, &ended, sizeof ended);
  close(exec->process.pidfd), close(exec->process.sync_fd);
  close_fd(&exec->process.output[0]), close_fd(&exec->process.output[1]);
  exec->process.pid = 0;
}

/* It leads a session of its own: its whole group goes. */
static void kill_exec(const struct exec *exec) {
  kill(-exec->process.pid, SIGKILL);
  kill(exec->process.pid, SIGKILL);
}

/* What it had started is killed, but not waited for: that may hang in the kernel. */
static void drop_client(int client) {
  for (struct exec *exec = execs; exec < execs + EXECS_MAX; exec++)
    if (exec->process.pid > 0 && exec->client == client) {
      kill_exec(exec);
      exec->client = -1;
      exec->blocked = false;
    }
  close(clients[client].fd);
  if (clients[client].frame) munmap(clients[client].frame, clients[client].length);
  clients[client] = (struct client){.fd = -1};
  if (start_client == client) start_client = -1;
}

static int start_exec(int client, uint32_t id, struct reader *request) {
  struct failure failure = {0};
  uint32_t timeout_ms = get_u32(request), left = get_u32(request);
  struct reader ops = get_reader(request);
  struct exec *exec = execs;
  while (exec < execs + EXECS_MAX && exec->process.pid > 0) exec++;
  if (request->bad) return -EBADMSG;
  if (status != STATUS_RUNNING) return -ESRCH;
  if (exec == execs + EXECS_MAX) return -EAGAIN;
  TRY(spawn(0, ops, &exec->process, &failure));
  close(exec->process.input);
  *exec = (struct exec){.process = exec->process, .client = client, .id = id, .left = left,
                        .deadline_ms = timeout_ms ? now_ms() + timeout_ms : 0};
  return 0;
}

static void handle(int client, uint32_t id, uint32_t kind, struct reader request) {
  int result = 0;
  if (kind == REQUEST_START && status == STATUS_CREATED) {
    result = CHECK(send(container.sync_fd, &id, sizeof id, MSG_NOSIGNAL));
    if (result >= 0) {
      status = STATUS_STARTING;
      start_client = client;
      start_id = id;
      return;
    }
  } else if (kind == REQUEST_START) {
    result = status == STATUS_RUNNING ? 0 : -EALREADY;
  } else if (kind == REQUEST_SIGNAL) {
    int number = (int)get_u32(&request);
    bool all = get_u32(&request);
    result = request.bad ? -EBADMSG : all ? signal_all(number) : CHECK(kill(container.pid, number));
  } else if (kind == REQUEST_EXEC) {
    result = start_exec(client, id, &request);
    if (result == 0) return;
  } else if (kind == REQUEST_STATE) {
    uint32_t state[3] = {status, (uint32_t)container.pid, (uint32_t)getpid()};
    return reply(client, id, ANSWER_OK, state, sizeof state);
  } else {
    result = -ENOSYS;
  }
  if (result < 0) reply_error(client, id, STAGE_SUPERVISOR, 0, -result);
  else reply(client, id, ANSWER_OK, NULL, 0);
}

/* Reads what has come; a frame that is whole is handled. A client that breaks the form is dropped. */
static void read_client(int index) {
  struct client *client = &clients[index];
  ssize_t count;
  if (!client->frame) {
    uint32_t length;
    count = recv(client->fd, &length, sizeof length, MSG_PEEK | MSG_DONTWAIT);
    if (count == sizeof length && length >= 8 && length <= REQUEST_MAX) {
      recv(client->fd, &length, sizeof length, 0);
      client->frame = map_memory(length);
      client->length = length;
      client->have = 0;
      if (client->frame) return;
    } else if (count < 0 && errno == EAGAIN) return;
    return drop_client(index);
  }
  count = recv(client->fd, client->frame + client->have, client->length - client->have, MSG_DONTWAIT);
  if (count < 0 && errno == EAGAIN) return;
  if (count <= 0) return drop_client(index);
  client->have += (uint32_t)count;
  if (client->have < client->length) return;
  struct reader reader = {client->frame, client->frame + client->length, false};
  uint32_t id = get_u32(&reader), kind = get_u32(&reader);
  handle(index, id, kind, reader);
  munmap(client->frame, client->length);
  client->frame = NULL;
}

static void accept_client(void) {
  int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  struct ucred peer;
  socklen_t size = sizeof peer;
  bool trusted = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == 0;
  for (struct client *client = clients; trusted && client < clients + CLIENTS_MAX; client++)
    if (client->fd < 0) {
      client->fd = fd;
      return;
    }
  close(fd);
}

/* The ladder's second half: end of file means that exec closed it; a message names the operation that failed. */
static void read_sync(void) {
  struct sync_message message;
  ssize_t length = recv(container.sync_fd, &message, sizeof message, MSG_DONTWAIT);
  if (length < 0) return;
  if (length == sizeof message) reply_error(start_client, start_id, STAGE_CONTAINER, message.index, (int)message.error);
  else if (status == STATUS_STARTING) reply(start_client, start_id, ANSWER_OK, NULL, 0);
  if (length != sizeof message && status == STATUS_STARTING) status = STATUS_RUNNING;
  close(container.sync_fd);
  container.sync_fd = -1;
}

static void write_record(const struct exit_status *ended) {
  char text[128];
  int length = snprintf(text, sizeof text, "exit 1 %u %u %u %llu%09u\n", ended->code, ended->signal, ended->flags & FLAG_OOM,
                        (unsigned long long)ended->seconds, ended->nanoseconds);
  int fd = openat(directory_fd, "exit.tmp", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd >= 0 && write(fd, text, (size_t)length) == length) renameat(directory_fd, "exit.tmp", directory_fd, "exit");
}

/*
 * The first process ended, and with it all of its pid namespace: nobody writes to the pipes any more, but for somebody
 * outside to whom it handed them, and whom nobody waits for.
 */
static void finish(void) __attribute__((noreturn));
static void finish(void) {
  struct exit_status ended = reap_process(container.pid, 0);
  if (oom_killed()) ended.flags = FLAG_OOM;
  if (container.sync_fd >= 0) read_sync();
  close_fd(&container.input); /* a terminal that nobody has open says so (EIO) once it is read to its end */
  for (unsigned stream = 0; stream < 2; stream++) {
    for (int round = 0; round < LAST_ROUNDS && container.output[stream] >= 0; round++)
      if (log_pump(container.output[stream], stream) <= 0) break;
    log_end(stream);
  }
  write_record(&ended);
  for (struct exec *exec = execs; exec < execs + EXECS_MAX; exec++)
    if (exec->process.pid > 0) {
      kill_exec(exec); /* its parent outside, which may not have come as far as to enter */
      finish_exec(exec);
    }
  for (int client = 0; client < CLIENTS_MAX; client++) reply(client, FRAME_ID_EVENT, ANSWER_EXITED, &ended, sizeof ended);
  control_unlink();
  _exit(0);
}

static void watch(int slot, int fd, short events) {
  slots[slot] = (struct pollfd){.fd = fd, .events = events};
}

/* Fills the poll set; returns how long to wait at most. */
static int prepare(void) {
  int64_t next_ms = -1, now = now_ms();
  watch(SLOT_LISTEN, listen_fd, POLLIN);
  watch(SLOT_SYNC, container.sync_fd, POLLIN);
  watch(SLOT_CONTAINER, container.pidfd, POLLIN);
  for (int stream = 0; stream < 2; stream++) watch(SLOT_LOGS + stream, container.output[stream], POLLIN);
  for (int index = 0; index < CLIENTS_MAX; index++) watch(SLOT_CLIENTS + index, clients[index].fd, POLLIN);
  for (int index = 0; index < EXECS_MAX; index++) {
    struct exec *exec = &execs[index];
    bool used = exec->process.pid > 0, open = used && !exec->blocked;
    watch(SLOT_EXECS + 3 * index, open ? exec->process.pidfd : -1, POLLIN);
    for (int stream = 0; stream < 2; stream++)
      watch(SLOT_EXECS + 3 * index + 1 + stream, open ? exec->process.output[stream] : -1, POLLIN);
    if (used && exec->blocked) slots[SLOT_CLIENTS + exec->client].events |= POLLOUT;
    if (!used || !exec->deadline_ms) continue;
    int64_t left_ms = exec->deadline_ms > now ? exec->deadline_ms - now : 0;
    if (next_ms < 0 || left_ms < next_ms) next_ms = left_ms;
  }
  return (int)next_ms;
}

static void serve_exec(int index) {
  struct exec *exec = &execs[index];
  if (exec->process.pid <= 0) return;
  if (exec->client >= 0 && slots[SLOT_CLIENTS + exec->client].revents & POLLOUT) exec->blocked = false;
  if (exec->deadline_ms && now_ms() >= exec->deadline_ms) {
    exec->flags |= FLAG_TIMED_OUT;
    exec->deadline_ms = 0;
    kill_exec(exec);
  }
  for (unsigned stream = 0; stream < 2; stream++)
    if (slots[SLOT_EXECS + 3 * index + 1 + (int)stream].revents) pump_exec(exec, stream);
  if (slots[SLOT_EXECS + 3 * index].revents && !exec->blocked) finish_exec(exec);
}

void control_loop(struct process *process) {
  container = *process;
  container_pidfd = container.pidfd;
  for (struct client *client = clients; client < clients + CLIENTS_MAX; client++) client->fd = -1;
  while (true) {
    if (poll(slots, SLOT_COUNT, prepare()) < 0) continue;
    if (slots[SLOT_SYNC].revents) read_sync();
    for (int stream = 0; stream < 2; stream++)
      if (slots[SLOT_LOGS + stream].revents && log_pump(container.output[stream], (unsigned)stream) == 0) {
        close(container.output[stream]);
        container.output[stream] = -1;
      }
    for (int index = 0; index < EXECS_MAX; index++) serve_exec(index);
    for (int index = 0; index < CLIENTS_MAX; index++)
      if (clients[index].fd >= 0 && slots[SLOT_CLIENTS + index].revents & ~POLLOUT) read_client(index);
    if (slots[SLOT_LISTEN].revents) accept_client();
    if (slots[SLOT_CONTAINER].revents) finish();
  }
}
