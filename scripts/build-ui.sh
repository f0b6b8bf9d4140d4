#!/usr/bin/env bash
# Builds the live page from proxy/server/page/src into proxy/server/page/dist, where it is embedded into the proxy,
# unless it is current.
#   scripts/build-ui.sh [--if-possible]
# With --if-possible what is missing is named in one line and is no error: / is a plain table then.
# Needs Node 20 or later; what it downloads is fixed by the lockfile, and no script of a package is run.
set -euo pipefail
cd "$(dirname "$0")/../proxy/server/page"

optional=false
case ${1:-} in
  '') ;;
  --if-possible) optional=true ;;
  *) echo "usage: scripts/build-ui.sh [--if-possible]" >&2; exit 2 ;;
esac

# without REASON ends this where the page can't be built.
without() {
  local table="/ is a plain table"
  [ ! -e dist/index.html ] || table="the page of an earlier build stays"
  echo "page: $1, so $table; for the live page install Node 20 or later with npm (nodejs.org) and build again" >&2
  [ "$optional" = true ] && exit 0
  exit 1
}

sources=(src package.json package-lock.json tsconfig.json ../../../scripts/build-ui.sh)
if [ -e dist/index.html ] && [ -z "$(find "${sources[@]}" -newer dist/index.html -print -quit)" ]; then
  exit 0
fi

command -v npm >/dev/null && command -v node >/dev/null || without "Node isn't installed"
version=$(node -p 'process.versions.node')
[ "${version%%.*}" -ge 20 ] || without "Node is version $version"

# quietly RUNS a command and shows what it output only where that is all there is to see.
quietly() {
  local output
  output=$("$@" 2>&1) && return 0
  [ "$optional" = true ] || echo "$output" >&2
  return 1
}

if [ ! -d node_modules ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  quietly npm ci --ignore-scripts --no-audit --no-fund --loglevel=error || without "npm can't fetch what builds it (make ui shows why)"
fi

bundle=$(mktemp -d node_modules/page.XXXXXX)
trap 'rm -rf "$bundle"' EXIT
npx --no-install tsc
npx --no-install esbuild src/main.ts --bundle --minify --target=es2022 --charset=utf8 --legal-comments=inline --log-level=warning --outfile="$bundle/app.js"
cp src/icon.svg src/index.html "$bundle/"
chmod -R a+rX "$bundle"
mkdir -p dist
mv "$bundle"/app.* "$bundle/icon.svg" dist/
mv "$bundle/index.html" dist/ # last: with it the page is whole, and current
touch dist/index.html
