# Shared by deploy/quickstart and test/run: brings a checkout to the point where its programs start. Sourced by bash.
# It installs only what is missing, and says what and why.

say() { printf '%s\n' "$*"; }
fail() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# need_packages FILE=PACKAGE=WHY...: installs from Debian each package whose file (a path or a program) is missing.
need_packages() {
  local missing=() entry file rest
  for entry in "$@"; do
    file=${entry%%=*} rest=${entry#*=}
    if [[ $file == /* ]]; then [[ -e $file ]] && continue; else command -v "$file" >/dev/null 2>&1 && continue; fi
    say "missing: ${rest%%=*} (${rest#*=})"
    missing+=("${rest%%=*}")
  done
  [[ ${#missing[@]} -eq 0 ]] && return 0
  [[ $(id -u) -eq 0 ]] || fail "cannot install ${missing[*]}: not root. Mend: sudo apt-get install ${missing[*]}"
  command -v apt-get >/dev/null 2>&1 || fail "cannot install ${missing[*]}: this is no Debian (no apt-get). Mend: install them with your package manager"
  say "installing from Debian: ${missing[*]}"
  # Packages that bring a daemon must not start it: our programs start their own.
  local policy=/usr/sbin/policy-rc.d made=0
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made=1
  fi
  local log status=0
  log=$(mktemp)
  { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" ||
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; }; } >"$log" 2>&1 || status=$?
  [[ $made -eq 1 ]] && rm -f "$policy"
  [[ $status -eq 0 ]] || { tail -n 15 "$log" >&2; rm -f "$log"; fail "apt-get could not install ${missing[*]}. Mend: see the lines above; apt-get update may help"; }
  rm -f "$log"
}

# need_modules: npm's packages, as the lock file says.
need_modules() {
  command -v npm >/dev/null 2>&1 || fail "npm not found. Mend: install Node 20 or newer with npm"
  if [[ ! -e node_modules/.package-lock.json || package-lock.json -nt node_modules/.package-lock.json ]]; then
    say "installing npm packages: npm ci"
    npm ci --no-audit --no-fund --loglevel=error || fail "npm ci failed. Mend: see the lines above"
    touch node_modules/.package-lock.json
  fi
  [[ -x node_modules/.bin/node ]] || fail "no Node for $(uname -m): linux on x86_64 and aarch64 are supported"
}

# need_shim: the C program that makes containers.
need_shim() {
  make --silent -C agent/shim || fail "the shim did not build. Mend: apt-get install gcc libc6-dev make"
}

# need_bundles: each program as one file that starts fast, made of the sources as they are now.
need_bundles() {
  node_modules/.bin/node deploy/build.ts || fail "the bundles did not build. Mend: see the lines above; the programs run without them too (rm -r deploy/out)"
}
