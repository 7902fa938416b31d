#!/bin/sh
# After the files are gone: state stays, until it is purged.
set -e
case $1 in
remove)
  if [ -d /run/systemd/system ]; then systemctl --system daemon-reload >/dev/null || true; fi
  if command -v deb-systemd-helper >/dev/null; then
    deb-systemd-helper mask swarm-manager.service swarm-agent.service >/dev/null || true
  fi
  ;;
purge)
  if command -v deb-systemd-helper >/dev/null; then
    deb-systemd-helper purge swarm-manager.service swarm-agent.service >/dev/null || true
    deb-systemd-helper unmask swarm-manager.service swarm-agent.service >/dev/null || true
  fi
  # A volume that is still mounted is another host's data.
  if grep -q ' /var/lib/swarm/agent/mounts/' /proc/self/mountinfo; then
    echo "swarm: volumes are still mounted below /var/lib/swarm/agent/mounts: not removed" >&2
  else
    rm -rf --one-file-system /var/lib/swarm/agent /var/lib/swarm/manager /run/swarm /run/swarm-agent ||
      echo "swarm: what is mounted below /var/lib/swarm was left" >&2
    rmdir /var/lib/swarm 2>/dev/null || true
  fi
  ;;
esac
