#!/bin/sh
# Before dpkg takes files away. An upgrade stops nothing: the new version starts the programs again.
set -e
case $1 in
remove | deconfigure)
  if [ -d /run/systemd/system ]; then
    deb-systemd-invoke stop swarm-manager.service swarm-agent.service >/dev/null || true
  fi
  /usr/lib/swarm/deploy/end-containers || true
  ;;
esac
rm -f /usr/lib/swarm/deploy/out/*.code
