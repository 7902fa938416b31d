/**
 * The default seccomp profile: an allow-list in the OCI's own shape (config-linux.md "Seccomp"). It behaves as the
 * profile of github.com/moby/profiles does, for the capabilities a container really has.
 *
 * What it must stop above all: new namespaces, mounts, kernel modules, keyrings, eBPF, io_uring, userfaultfd and the
 * socket families AF_ALG and AF_VSOCK. One hole is the kernel's: 32-bit `socketcall` hides its arguments behind a
 * pointer, so a filter cannot see the family there; only a security module can.
 */
import type { CapabilityName } from "./capabilities.ts";
import type { OciSeccomp, OciSeccompArgument, OciSeccompSyscall } from "./oci.ts";
import type { Architecture } from "./syscalls.ts";

const ENOSYS = 38;
const EPERM = 1;

/** Allowed to every container: they act on its own files, memory, processes and sockets. */
const UNCONDITIONAL = {
  files: `
    access cachestat chdir chmod chown chown32 creat faccessat faccessat2 fchdir fchmod fchmodat fchmodat2
    fchown fchown32 fchownat fstat fstat64 fstatat64 fstatfs fstatfs64 futimesat getcwd getdents getdents64
    lchown lchown32 link linkat listmount lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat
    readlink readlinkat rename renameat renameat2 rmdir stat stat64 statfs statfs64 statmount statx symlink
    symlinkat truncate truncate64 unlink unlinkat utime utimensat utimensat_time64 utimes`,
  attributes: `
    fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr
    lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat`,
  descriptors: `
    _llseek close close_range copy_file_range dup dup2 dup3 fadvise64 fadvise64_64 fallocate fcntl fcntl64
    fdatasync flock fsync ftruncate ftruncate64 ioctl lseek open openat openat2 pipe pipe2 pread64 preadv
    preadv2 pwrite64 pwritev pwritev2 read readahead readv sendfile sendfile64 splice sync sync_file_range
    syncfs tee vmsplice write writev`,
  waiting: `
    _newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
    epoll_wait_old eventfd eventfd2 fanotify_mark futex futex_requeue futex_time64 futex_wait futex_waitv
    futex_wake get_robust_list inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel
    io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit membarrier pause poll ppoll
    ppoll_time64 pselect6 pselect6_time64 restart_syscall rseq select set_robust_list signalfd signalfd4`,
  memory: `
    brk madvise map_shadow_stack memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect
    mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease
    remap_file_pages`,
  processes: `
    execve execveat exit exit_group fork get_thread_area getpgid getpgrp getpid getppid getrandom getrlimit
    getrusage getsid gettid landlock_add_rule landlock_create_ruleset landlock_restrict_self pidfd_open prctl
    prlimit64 seccomp set_thread_area set_tid_address setpgid setrlimit setsid sysinfo ugetrlimit uname
    uretprobe vfork wait4 waitid waitpid`,
  identity: `
    capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid
    getresgid32 getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
    setgroups setgroups32 setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32
    setuid setuid32 umask`,
  signals: `
    kill pidfd_send_signal rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn tgkill tkill`,
  scheduling: `
    getcpu getpriority ioprio_get ioprio_set sched_get_priority_max sched_get_priority_min sched_getaffinity
    sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield setpriority`,
  clocks: `
    adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create
    timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
    timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times`,
  queues: `
    ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
    mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt
    shmget`,
  sockets: `
    accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmmsg_time64
    recvmsg sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair`,
} as const;

/** Allowed to whom the kernel would allow them anyway: what each capability unlocks. */
const UNLOCKED_BY: Partial<Readonly<Record<CapabilityName, string>>> = {
  CAP_BPF: "bpf",
  CAP_DAC_READ_SEARCH: "open_by_handle_at",
  CAP_PERFMON: "perf_event_open",
  CAP_SYS_ADMIN: `
    bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules
    lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname
    sethostname setns syslog umount umount2 unshare`,
  CAP_SYS_BOOT: "reboot",
  CAP_SYS_CHROOT: "chroot",
  CAP_SYS_MODULE: "delete_module finit_module init_module",
  CAP_SYS_NICE: "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
  CAP_SYS_PACCT: "acct",
  CAP_SYS_PTRACE: "kcmp pidfd_getfd process_madvise",
  CAP_SYS_RAWIO: "ioperm iopl",
  CAP_SYS_TIME: "clock_settime clock_settime64 settimeofday stime",
  CAP_SYS_TTY_CONFIG: "vhangup",
  CAP_SYSLOG: "syslog",
};

/** Tracing one's own processes: safe since Linux 4.8, older than anything the agent starts on. */
const TRACING = "process_vm_readv process_vm_writev ptrace";

/** Allowed only where the architecture has them. */
const ARCHITECTURE_CALLS: Readonly<Record<Architecture, string>> = {
  x86_64: "arch_prctl modify_ldt",
  aarch64: "sync_file_range2",
};

/**
 * Socket families (include/linux/socket.h) as ranges [first, last]: all that Linux has had, less those it has since
 * removed (DECnet, ECONET, ATMSVC, IRDA, WANPIPE, ISDN, CAIF) and less AF_ALG (38: kernel crypto, CVE-2026-31431) and
 * AF_VSOCK (40: reaches the hypervisor). An allow-list on all 64 bits: the kernel looks at the low 32 only, so a
 * "greater than 40" rule would let 2^32 + 38 through as AF_ALG.
 */
const SOCKET_FAMILIES: readonly (readonly [number, number])[] = [
  [0, 11],
  [13, 18],
  [21, 22],
  [24, 24],
  [26, 33],
  [35, 36],
  [39, 39],
  [41, 45],
];

/** Execution domains that change nothing dangerous: PER_LINUX, PER_LINUX32, UNAME26 with either, and "which is it?". */
const PERSONALITIES = [0x0, 0x8, 0x20000, 0x20008, 0xffffffff];

/** CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}: a container makes no namespaces. */
const NAMESPACE_FLAGS = 0x7e020000;

/** What the default profile depends on. */
export interface DefaultProfileOptions {
  readonly architecture: Architecture;
  readonly capabilities: readonly CapabilityName[];
}

/** Kinds of capability sets remembered: a host sees a handful; beyond this they are built anew, not hoarded. */
const PROFILES_MAX = 64;
const profiles = new Map<string, OciSeccomp>();

/**
 * The default profile for a container with these capabilities. Equal options give the identical object, so that
 * `compileSeccomp`, which remembers programs by profile, compiles each kind of container once.
 */
export function defaultSeccompProfile(options: DefaultProfileOptions): OciSeccomp {
  const unlocking = options.capabilities.filter((name) => UNLOCKED_BY[name] !== undefined).sort();
  const key = [options.architecture, ...unlocking].join(" ");
  const known = profiles.get(key);
  if (known !== undefined) return known;
  const profile = buildProfile(options.architecture, unlocking);
  if (profiles.size >= PROFILES_MAX) profiles.clear();
  profiles.set(key, profile);
  return profile;
}

function buildProfile(architecture: Architecture, unlocking: readonly CapabilityName[]): OciSeccomp {
  const unconditional = [
    ...Object.values(UNCONDITIONAL),
    TRACING,
    ARCHITECTURE_CALLS[architecture],
    ...unlocking.map((name) => UNLOCKED_BY[name] ?? ""),
  ];
  const rules: OciSeccompSyscall[] = [
    { names: unconditional.flatMap(words), action: "SCMP_ACT_ALLOW" },
    ...SOCKET_FAMILIES.flatMap(([first, last]) => families(first, last)),
    ...PERSONALITIES.map((value) => allowIf("personality", { index: 0, value, op: "SCMP_CMP_EQ" })),
  ];
  if (!unlocking.includes("CAP_SYS_ADMIN")) {
    rules.push(
      allowIf("clone", { index: 0, value: NAMESPACE_FLAGS, valueTwo: 0, op: "SCMP_CMP_MASKED_EQ" }),
      // clone3 keeps its flags behind a pointer. ENOSYS, not EPERM: C libraries then fall back to clone.
      { names: ["clone3"], action: "SCMP_ACT_ERRNO", errnoRet: ENOSYS },
    );
  }
  return {
    defaultAction: "SCMP_ACT_ERRNO",
    defaultErrnoRet: EPERM,
    architectures: architecture === "x86_64" ? ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"] : ["SCMP_ARCH_AARCH64"],
    syscalls: rules,
  };
}

function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== "");
}

function allowIf(name: string, argument: OciSeccompArgument): OciSeccompSyscall {
  return { names: [name], action: "SCMP_ACT_ALLOW", args: [argument] };
}

/** One rule for families 0 to `last`, else one a family: engines read two comparisons of one argument as "or". */
function families(first: number, last: number): OciSeccompSyscall[] {
  if (first === 0) return [allowIf("socket", { index: 0, value: last + 1, op: "SCMP_CMP_LT" })];
  const values = Array.from({ length: last - first + 1 }, (_, offset) => first + offset);
  return values.map((value) => allowIf("socket", { index: 0, value, op: "SCMP_CMP_EQ" }));
}
