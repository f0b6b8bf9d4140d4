#!/usr/bin/env bash
# Checks who may import whom: first-party imports by the table below, and which packages may know fasthttp, Cap'n Proto,
# Redis and C. What isn't named is not allowed. Test files are held to the same table, but may use any leaf that is
# allowed to their package.
set -euo pipefail
cd "$(dirname "$0")/.."

# package: what it may import of ours (without the module's name)
table='
schema:
schema/wire: schema
schema/catalogue:
schema/settings:
schema/trace:
schema/parts:
proxy: proxy/adminsocket proxy/selftest proxy/top proxy/server proxy/inflight proxy/link proxy/queue proxy/journal proxy/auth proxy/limit proxy/metrics proxy/api schema/settings schema/catalogue schema/trace proxy/trace
proxy/api:
proxy/api/infer: proxy/api proxy/openapi
proxy/api/openai: proxy/api proxy/openapi
proxy/api/responses: proxy/api proxy/openapi proxy/api/openai
proxy/api/vocabulary: proxy/api proxy/openapi
proxy/api/anthropic: proxy/api proxy/openapi
proxy/openapi: proxy/api
proxy/auth:
proxy/limit:
proxy/trace: schema/trace
proxy/queue: proxy/api
proxy/admission:
proxy/journal: proxy/api
proxy/metrics: schema/catalogue
proxy/inflight: schema/parts proxy/api proxy/admission proxy/queue proxy/journal proxy/metrics
proxy/link: proxy/api proxy/inflight schema schema/wire
proxy/adminsocket: proxy/link
proxy/selftest: proxy/api schema/catalogue
proxy/top: proxy/metrics proxy/server
proxy/server: schema/parts proxy/api/vocabulary proxy/api proxy/api/infer proxy/api/openai proxy/api/responses proxy/api/anthropic proxy/auth proxy/limit proxy/inflight proxy/metrics proxy/openapi proxy/trace
engine: engine/link engine/batch engine/models engine/supervise engine/devices engine/demo engine/metrics engine/llama engine/mock engine/fault engine/preload engine/trace schema/settings schema/trace
engine/batch:
engine/models:
engine/devices:
engine/preload: engine/models schema/settings
engine/demo:
engine/supervise:
engine/metrics: schema/catalogue
engine/link: engine/batch engine/models schema schema/parts schema/wire
engine/trace: engine/link schema/trace
engine/grammar:
engine/llama: engine/batch engine/models engine/grammar schema/parts
engine/mock: engine/batch engine/models
engine/fault: engine/batch engine/models
'
fail=0
say() { echo "import rule: $*" >&2; fail=1; }

allowed() { # package, import
  local row
  row=$(grep -E "^$1:" <<<"$table") || { say "package $1 is not in the table of scripts/check-imports.sh"; return; }
  [[ " ${row#*:} " == *" $2 "* ]] || say "$1 must not import $2"
}

for tags in "" llama; do
  while read -r pkg imports; do
    pkg=${pkg#tandem/}
    [[ $pkg == scripts/* || $pkg == deploy/* ]] && continue
    for import in $imports; do
      case $import in
        tandem/*) allowed "$pkg" "${import#tandem/}" ;;
        github.com/valyala/fasthttp*)
          [[ $pkg == proxy || $pkg == proxy/server ]] || say "$pkg must not know fasthttp" ;;
        capnproto.org/*)
          [[ $pkg == schema || $pkg == schema/wire || $pkg == proxy/link || $pkg == engine/link ]] || say "$pkg must not know Cap'n Proto" ;;
        github.com/redis/*)
          [[ $pkg == proxy/limit ]] || say "$pkg must not know Redis" ;;
        C) [[ $pkg == engine/llama || $pkg == engine/grammar ]] || say "$pkg must not use cgo" ;;
      esac
    done
  done < <(CGO_ENABLED=1 go list -e -tags "$tags" -f '{{.ImportPath}} {{join .Imports " "}}' ./...)
done
exit $fail
