#!/bin/sh
# After dpkg has put the files in place: the user, the directories, V8's code, and the units (enabled and started the first time,
# started again after an upgrade; containers run on meanwhile).
set -e
[ "$1" = configure ] || exit 0
previous=$2

systemd-sysusers swarm.conf
systemd-tmpfiles --create swarm.conf || [ ! -d /run/systemd/system ]
/usr/lib/swarm/bin/node /usr/lib/swarm/deploy/out/warm-up.cjs /usr/lib/swarm/deploy/out ||
  echo "swarm: V8's code was not made; the programs start slower without it" >&2

units="swarm-manager.service swarm-agent.service"
for unit in $units; do
  deb-systemd-helper unmask "$unit" >/dev/null || true
  if deb-systemd-helper --quiet was-enabled "$unit"; then
    deb-systemd-helper enable "$unit" >/dev/null || true
  else
    deb-systemd-helper update-state "$unit" >/dev/null || true
  fi
done
if [ -d /run/systemd/system ]; then
  systemctl --system daemon-reload >/dev/null || true
  action=start
  [ -z "$previous" ] || action=restart
  for unit in $units; do deb-systemd-invoke "$action" "$unit" >/dev/null || true; done
fi
