#!/usr/bin/env bash
# Deploys a stack as a CI job does: shows what would change, changes it, and ends with an exit code that is true.
#   deploy.sh guestbook/stack.yml [STACK]
# 0: converged, or nothing to do. 1: failed (the stack went back to what it was). 3: not converged in time.
set -uo pipefail
file=${1:?usage: deploy.sh STACK-FILE [STACK]}
stack=${2:-}
swarmctl=${SWARMCTL:-swarmctl}

plan=$(mktemp)
trap 'rm -f "$plan"' EXIT

"$swarmctl" stack plan -c "$file" --out "$plan" $stack
case $? in
  0) echo "nothing to do"; exit 0 ;;
  4) ;; # there are changes
  *) exit 1 ;;
esac

# What was planned is what is deployed: if somebody else changed the stack meanwhile, this is refused.
exec "$swarmctl" stack deploy --plan "$plan" --rollback-on-failure --timeout "${TIMEOUT:-5m}" -c "$file" $stack
