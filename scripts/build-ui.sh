#!/usr/bin/env bash
# Builds the live page from proxy/server/page/src into proxy/server/page/dist, which builds with the tag ui embed. Needs Node 20 or later;
# what it downloads is fixed by the lockfile, and no script of a package is run.
set -euo pipefail
cd "$(dirname "$0")/../proxy/server/page"

command -v npm >/dev/null || { echo "build-ui: npm is missing (Node 20 or later); without the page, / is a plain table" >&2; exit 1; }
if [ ! -d node_modules ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
fi

npx --no-install tsc
rm -rf dist
npx --no-install esbuild src/main.ts --bundle --minify --target=es2022 --charset=utf8 --legal-comments=inline --log-level=warning --outfile=dist/app.js
cp src/index.html src/icon.svg dist/
chmod -R a+rX dist
ls -l dist >&2
