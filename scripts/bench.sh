#!/usr/bin/env bash
# Builds what is measured and runs the benchmarks. Arguments: unary, stream, scrapes, memory, engine, smollm2 (all by
# default). The engine is measured beside llama-server built from the same source; that build takes minutes the first
# time. LLAMA_SERVER=none leaves it out. smollm2 is the same as engine with the real model that SMOLLM2 names (make
# bench sets it).
set -euo pipefail
cd "$(dirname "$0")/.."

make --no-print-directory build
CGO_ENABLED=0 go build -o bin/tandem-engine-mock ./engine
parts="${*:-unary stream scrapes memory engine${SMOLLM2:+ smollm2}}"
if [[ " $parts " == *" engine "* || " $parts " == *" smollm2 "* ]] && [[ -z "${LLAMA_SERVER:-}" ]]; then
  LLAMA_SERVER=$(SERVER=1 scripts/build-llama.sh)/bin/llama-server
fi
[ "${LLAMA_SERVER:-none}" != none ] || unset LLAMA_SERVER
export LLAMA_SERVER="${LLAMA_SERVER:-}"
# shellcheck disable=SC2086
go run ./scripts/bench $parts
if [[ " $parts " == *" unary "* ]]; then
  go test ./schema/wire ./proxy/api -run '^$' -bench . -benchtime 1s
fi
