#!/bin/sh
# Installs, upgrades or removes Swarm on a Debian, Ubuntu or Fedora host, in /usr/local, from what `npm run release` makes.
#
#   install.sh [--from DIRECTORY|URL] [--version VERSION] [--sums-sha256 DIGEST]
#                          install, or upgrade: running containers stay. Default: from where this lies. SHA256SUMS, which names the
#                          digests of all else, must have DIGEST, where that is given
#   install.sh --remove    end this host's containers and remove the programs; state stays
#   install.sh --purge     and remove the state too: volumes, images, the cluster's own data
#
# It does nothing that has been done already, and says what it does.
set -eu

PREFIX=/usr/local
LIB=$PREFIX/lib/swarm
UNITS="swarm-manager.service swarm-agent.service"
KERNEL_MIN=5.12
GLIBC_MIN=2.28

say() { printf '%s\n' "$*"; }
refuse() {
  printf 'install.sh: %s\n' "$*" >&2
  exit 1
}

usage() {
  sed -n '2,10s/^# \{0,1\}//p' "$0"
  exit "$1"
}

# is_older A B: whether version A comes before B.
is_older() { [ "$1" != "$2" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

# Fills architecture, or refuses the host with the reason.
check_host() {
  [ "$(id -u)" -eq 0 ] || refuse "must run as root: it makes a user, and agents make containers"
  case $(uname -m) in
  x86_64) architecture=amd64 ;;
  aarch64) architecture=arm64 ;;
  *) refuse "this is $(uname -m): there are releases for x86_64 and aarch64" ;;
  esac
  check_distribution
  # Alpine's and others' C library has no such variable.
  glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || refuse "this host has no glibc (it may have musl), which the Node of this release needs"
  ! is_older "${glibc#glibc }" "$GLIBC_MIN" || refuse "$glibc is older than $GLIBC_MIN, which the Node of this release needs"
  kernel=$(uname -r)
  ! is_older "${kernel%%[-+]*}" "$KERNEL_MIN" || refuse "the kernel is $kernel: containers need $KERNEL_MIN (mount_setattr)"
  [ -d /run/systemd/system ] || refuse "systemd does not run this host: it starts the programs, and brings their cgroups"
  check_cgroups
}

check_distribution() {
  [ -r /etc/os-release ] || refuse "there is no /etc/os-release: is this Debian, Ubuntu or Fedora?"
  # shellcheck disable=SC1091 # the host's
  distribution=$(. /etc/os-release && printf ' %s %s ' "${ID:-}" "${ID_LIKE:-}")
  case $distribution in
  *' debian '* | *' ubuntu '* | *' fedora '*) ;;
  *)
    # shellcheck disable=SC2086 # words
    set -- $distribution
    refuse "this is ${1:-unknown}: Debian, Ubuntu, Fedora and what is made of them are supported"
    ;;
  esac
}

# Memory, processors and numbers of processes, in version 2 or in each of version 1's trees.
check_cgroups() {
  if [ -r /sys/fs/cgroup/cgroup.controllers ]; then
    present=$(cat /sys/fs/cgroup/cgroup.controllers)
  else
    present=$(awk '$3 == "cgroup" { gsub(",", " ", $4); print $4 }' /proc/mounts)
  fi
  [ -n "$present" ] || refuse "there are no cgroups below /sys/fs/cgroup, which hold each task's limits"
  for controller in memory cpu pids; do
    printf '%s\n' "$present" | tr ' ' '\n' | grep -qx "$controller" ||
      refuse "the cgroup controller $controller is missing: take cgroup_disable=$controller off the kernel's command line, or add cgroup_enable=$controller"
  done
}

# fetch NAME: puts a file of the release into $work.
fetch() {
  case $from in
  http://* | https://*)
    if command -v curl >/dev/null; then
      curl -fsSL -o "$work/$1" "$from/$1" || refuse "cannot get $from/$1"
    elif command -v wget >/dev/null; then
      wget -q -O "$work/$1" "$from/$1" || refuse "cannot get $from/$1"
    else
      refuse "neither curl nor wget is installed: get $from/$1 and SHA256SUMS, and say --from their directory"
    fi
    ;;
  *)
    [ -r "$from/$1" ] || refuse "there is no $from/$1"
    ln -s "$(cd "$from" && pwd)/$1" "$work/$1"
    ;;
  esac
}

# verify NAME DIGEST SOURCE: refuses a file with another digest.
verify() {
  actual=$(sha256sum "$work/$1" | cut -d ' ' -f 1)
  [ "$actual" = "$2" ] || refuse "$1 is not what $3: $actual instead of $2"
}

# Fills tarball and digest with what SHA256SUMS names for this architecture.
choose_tarball() {
  fetch SHA256SUMS
  [ -z "$sums_digest" ] || verify SHA256SUMS "$sums_digest" "--sums-sha256 says"
  pattern="swarm-${version:-*}-linux-$architecture.tar.gz"
  found=$(while read -r sum name; do
    # shellcheck disable=SC2254 # a pattern
    case $name in $pattern) printf '%s %s\n' "$sum" "$name" ;; esac
  done <"$work/SHA256SUMS")
  [ -n "$found" ] || refuse "$from/SHA256SUMS names no $pattern"
  [ "$(printf '%s\n' "$found" | wc -l)" -eq 1 ] || refuse "$from has several releases for $architecture: say which with --version"
  digest=${found%% *}
  tarball=${found#* }
}

install() {
  [ ! -e /usr/lib/swarm ] || refuse "the package swarm-cluster is installed: upgrade it with apt, or remove it first"
  work=$(mktemp -d)
  trap 'rm -rf "$work" "$LIB.new"' EXIT
  choose_tarball
  if [ "$digest" = "$(cat "$LIB/digest" 2>/dev/null)" ]; then
    say "${tarball%.tar.gz} is installed already"
  else
    fetch "$tarball"
    verify "$tarball" "$digest" "SHA256SUMS says"
    put_in_place
  fi
  set_up
}

# The programs' own folder changes in one step; what runs keeps the files that it has open.
put_in_place() {
  mkdir "$work/tree"
  tar -xzf "$work/$tarball" -C "$work/tree" --strip-components=1 --no-same-owner
  rm -rf "$LIB.new"
  mkdir -p "$PREFIX/lib"
  cp -a "$work/tree$LIB" "$LIB.new"
  rm -r "$work/tree$LIB"
  (cd "$work/tree" && find . ! -type d | sed 's/^\.//' | sort) >"$LIB.new/files"
  printf '%s\n' "$digest" >"$LIB.new/digest"
  "$LIB.new/bin/node" "$LIB.new/deploy/out/warm-up.cjs" "$LIB.new/deploy/out" ||
    say "V8's code was not made: the programs start slower without it"
  label -R "$LIB.new"
  while read -r path; do
    case $path in
    /etc/default/*)
      if [ -e "$path" ]; then
        say "kept $path"
        continue
      fi
      ;;
    esac
    mkdir -p "${path%/*}"
    cp -a "$work/tree$path" "$path.new"
    mv -f "$path.new" "$path"
    label "$path"
  done <"$LIB.new/files"
  if [ -e "$LIB/files" ]; then
    # What an older version had and this one has not.
    grep -vxF -f "$LIB.new/files" "$LIB/files" | while read -r path; do rm -f "$path"; done
    [ ! -e "$LIB/enabled" ] || : >"$LIB.new/enabled"
    rm -rf "$LIB.old"
    mv "$LIB" "$LIB.old"
  fi
  mv "$LIB.new" "$LIB"
  rm -rf "$LIB.old"
  replaced=yes
  say "installed ${tarball%.tar.gz} in $PREFIX"
}

# label [-R] PATH: where SELinux is (Fedora's default), what was unpacked in /tmp bears /tmp's label: systemd may not read such a unit.
# Nor may it start what lies below a lib directory, unless that is said to be a program.
label() {
  if ! command -v selinuxenabled >/dev/null || ! selinuxenabled; then return; fi
  restorecon -F "$@"
  [ "$1" = -R ] || return 0
  find "$2" -type f -perm -u+x -exec chcon -t bin_t {} +
}

# User, directories and units; the units are enabled the first time only, so that an administrator's "no" stands.
set_up() {
  systemd-sysusers /etc/sysusers.d/swarm.conf
  systemd-tmpfiles --create /etc/tmpfiles.d/swarm.conf
  systemctl daemon-reload
  for unit in $UNITS; do
    if [ ! -e "$LIB/enabled" ]; then
      systemctl --quiet enable "$unit"
      systemctl start "$unit" || say "$unit did not start: journalctl -u $unit"
    elif [ "${replaced:-no}" = yes ]; then
      systemctl try-restart "$unit" || say "$unit did not start again: journalctl -u $unit"
    fi
    say "$unit is $(systemctl is-enabled "$unit" 2>/dev/null || true) and $(systemctl is-active "$unit" || true)"
  done
  : >"$LIB/enabled"
  say "swarmctl check tells what this host lacks:"
  "$PREFIX/bin/swarmctl" check | grep -v '^OK' || true
}

remove() {
  if [ ! -e "$LIB/files" ]; then
    say "nothing is installed in $PREFIX"
    return
  fi
  for unit in $UNITS; do
    systemctl --quiet disable --now "$unit" 2>/dev/null || true
  done
  "$LIB/deploy/end-containers" || say "not all of this host's containers and mounts are gone"
  while read -r path; do
    case $path in /etc/default/*) continue ;; esac
    rm -f "$path"
  done <"$LIB/files"
  rm -rf "$LIB" "$PREFIX/share/doc/swarm"
  systemctl daemon-reload
  say "removed the programs from $PREFIX; state stays in /var/lib/swarm, options in /etc/default"
}

purge() {
  remove
  if grep -q ' /var/lib/swarm/agent/mounts/' /proc/self/mountinfo; then
    refuse "volumes are still mounted below /var/lib/swarm/agent/mounts: nothing of the state was removed"
  fi
  rm -f /etc/default/swarm-manager /etc/default/swarm-agent
  rm -rf --one-file-system /var/lib/swarm/agent /var/lib/swarm/manager /run/swarm /run/swarm-agent ||
    say "what is mounted below /var/lib/swarm was left"
  rmdir /var/lib/swarm 2>/dev/null || true
  say "removed this host's state; the user swarm stays"
}

action=install
from=$(dirname "$0")
version=
sums_digest=
while [ $# -gt 0 ]; do
  case $1 in
  --from | --version | --sums-sha256)
    [ $# -gt 1 ] || refuse "$1 needs a value (see --help)"
    case $1 in
    --from) from=${2%/} ;;
    --version) version=$2 ;;
    --sums-sha256) sums_digest=$2 ;;
    esac
    shift
    ;;
  --remove) action=remove ;;
  --purge) action=purge ;;
  -h | --help) usage 0 ;;
  *) refuse "unknown argument $1 (see --help)" ;;
  esac
  shift
done
if [ "$action" = install ]; then
  check_host
else
  [ "$(id -u)" -eq 0 ] || refuse "must run as root"
fi
"$action"
