# Sourced by the wrappers of the three programs, which set root, program, entry and flags. Runs the program with an installation's
# own Node, or the checkout's: the bundle of `npm run build` when there is one (it looks whether the sources changed), else the
# sources, whose compiled code is kept in the user's own cache, never where somebody else could put code.
node=$root/bin/node
[ -e "$node" ] || node=$root/node_modules/.bin/node
if [ -e "$root/$entry" ] && [ -z "${NODE_COMPILE_CACHE:-}" ] && [ -n "${XDG_CACHE_HOME:-${HOME:-}}" ]; then
  export NODE_COMPILE_CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/swarm/compile"
fi
if [ -e "$root/deploy/out/$program.cjs" ]; then entry=deploy/out/$program.cjs; fi
# Without arenas of V8's and libuv's threads, and with what a burst left given back, a manager of 10,000 tasks is 30 MB smaller.
: "${MALLOC_ARENA_MAX:=1}" "${MALLOC_TRIM_THRESHOLD_:=131072}" "${MALLOC_MMAP_THRESHOLD_:=131072}"
export MALLOC_ARENA_MAX MALLOC_TRIM_THRESHOLD_ MALLOC_MMAP_THRESHOLD_
# Without -- Node takes a command's own --env-file for one of its own options, wherever it stands.
# shellcheck disable=SC2086 # flags are words
exec "$node" --disable-warning=ExperimentalWarning $flags -- "$root/$entry" "$@"
