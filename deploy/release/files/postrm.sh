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
  # What is mounted there may be another host's data.
  if awk '$5 ~ "^/var/lib/swarm/" { found = 1 } END { exit !found }' /proc/self/mountinfo; then
    echo "swarm: something is still mounted below /var/lib/swarm: not removed" >&2
  else
    rm -rf --one-file-system /var/lib/swarm /run/swarm /run/swarm-agent
  fi
  ;;
esac
