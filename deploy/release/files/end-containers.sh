#!/bin/sh
# Ends the containers of this host's node and takes away what the kernel keeps for them: links, rules, volumes that are mounted.
# For a host whose agent goes for good; whoever wants tasks to move first drains the node. Data stays where it is.
set -u

node=$(cut -c 1-12 /var/lib/swarm/agent/node-id 2>/dev/null)
[ -n "$node" ] || exit 0

# The processes of its containers, of cgroup v2 or of every tree of v1.
processes() { find /sys/fs/cgroup -path "*/swarm-$node/container-*/cgroup.procs" -exec cat {} + 2>/dev/null | sort -u; }

ended() {
  tries=$1
  while [ -n "$(processes)" ]; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || return 1
    sleep 0.1
  done
}

if [ -n "$(processes)" ]; then
  echo "ending the containers of this host"
  # shellcheck disable=SC2046 # one word for each process
  kill $(processes) 2>/dev/null
  if ! ended 100; then
    # shellcheck disable=SC2046
    kill -9 $(processes) 2>/dev/null
    ended 100 || echo "some processes of containers do not end" >&2
  fi
fi
find /sys/fs/cgroup -depth -type d -path "*/swarm-$node*" -exec rmdir {} + 2>/dev/null
if command -v nft >/dev/null; then nft delete table ip swarm0 2>/dev/null; fi
if [ -e /sys/class/net/swarm0 ] && command -v ip >/dev/null; then ip link delete swarm0; fi
# Volumes with options, perhaps of other hosts; the last one mounted first.
mounted() { awk '$5 ~ "^/var/lib/swarm/agent/mounts/" { print $5 }' /proc/self/mountinfo | sort -r; }
mounted | while read -r path; do umount "$path"; done
[ -z "$(mounted)" ]
