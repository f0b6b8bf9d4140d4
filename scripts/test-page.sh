#!/usr/bin/env bash
# Runs scripts/page: the live page in headless Chromium, with a real proxy and a mock engine behind it, and once more
# with llama.cpp and the demo model when bin/tandem-engine is there (make build). Before that, without a browser, the
# page's module that reads streams. Screenshots and logs are kept in out/page. Some minutes. CHROMIUM names another
# browser. Needs Node 20 or later.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { echo "test-page: $*" >&2; }

browser=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
if [ -z "$browser" ]; then
  install=(apt-get install -y --no-install-recommends chromium)
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    step "a Chromium is missing: sudo ${install[*]} (or CHROMIUM=/path/to/one)"
    exit 1
  fi
  step "installing chromium"
  { apt-get update -qq && "${install[@]}"; } >/dev/null
  browser=$(command -v chromium)
fi
command -v npm >/dev/null || { step "npm is missing (Node 20 or later)"; exit 1; }

scripts/build-ui.sh
(cd scripts/page && if [ ! -d node_modules ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then npm ci --ignore-scripts --no-audit --no-fund --loglevel=error; fi)

out=$PWD/out/page
rm -rf "$out"
mkdir -p "$out/bin"
step "building proxy and mock engine"
CGO_ENABLED=0 go build -o "$out/bin/tandem-proxy" ./proxy
CGO_ENABLED=0 go build -o "$out/bin/tandem-engine-mock" ./engine
real=
if [ -x bin/tandem-engine ]; then
  real=$PWD/bin/tandem-engine
else
  step "bin/tandem-engine isn't there (make build): without the demo model"
fi

step "reading streams"
(cd proxy/server/page && npx --no-install esbuild src/completion_stream.ts --format=esm --target=es2022 --log-level=warning --outfile="$out/completion_stream.mjs")
MODULE=$out/completion_stream.mjs node --test --test-reporter=dot scripts/page/completion_stream.test.mjs

PROXY=$out/bin/tandem-proxy ENGINE_MOCK_PROGRAM=$out/bin/tandem-engine-mock ENGINE_REAL_PROGRAM=$real CHROMIUM=$browser OUT=$out \
  node --test --test-reporter=spec scripts/page/page.test.mjs
step "all good; screenshots are in out/page"
