# Sourced by the wrappers of the three programs, which set root, program, entry and flags. Runs the program with the checkout's
# own Node: the bundle of `npm run build` when there is one (it looks whether the sources changed), else the sources, whose
# compiled code is kept in the user's own cache, never where somebody else could put code.
if [ -e "$root/deploy/out/$program.cjs" ]; then
  entry=deploy/out/$program.cjs
elif [ -z "${NODE_COMPILE_CACHE:-}" ] && [ -n "${XDG_CACHE_HOME:-${HOME:-}}" ]; then
  export NODE_COMPILE_CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/swarm/compile"
fi
# The arenas of V8's and libuv's threads would hold 4 MB more.
: "${MALLOC_ARENA_MAX:=1}"
export MALLOC_ARENA_MAX
# shellcheck disable=SC2086 # flags are words
exec "$root/node_modules/.bin/node" --disable-warning=ExperimentalWarning ${flags:-} "$root/$entry" "$@"
