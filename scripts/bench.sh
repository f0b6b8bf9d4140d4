#!/usr/bin/env bash
# Builds what is measured and runs the benchmarks. Arguments: unary, stream, scrapes, memory, engine, smollm2, serving
# (all by default; smollm2 and serving need the real model that SMOLLM2 names, make bench sets it). QUICK=1 runs serving
# alone and shortened, in about five minutes.
#
# The engine is measured beside llama-server: in the parts engine and smollm2 from the same build of the library, which
# shows what our own code costs; in serving from the source without our patches, which is what its users run. Each
# build takes minutes the first time. LLAMA_SERVER=none and PEERS=none leave them out.
#
# serving also measures a server in Python (FastAPI and transformers), whose libraries are downloaded the first time,
# about 2.5 GB. OWNER_STACK=none or PEERS=none leave it out, and so does QUICK=1 where it isn't installed yet.
#
# serving writes its results into docs/benchmarks, or BENCH_RESULTS; with QUICK=1 it only prints them.
# BENCH_SCENARIOS=throughput,overload … runs some of its scenarios.
set -euo pipefail
cd "$(dirname "$0")/.."

make --no-print-directory build
if [ "${QUICK:-}" = 1 ]; then
  parts="${*:-serving}"
else
  parts="${*:-unary stream scrapes memory engine${SMOLLM2:+ smollm2 serving}}"
fi
has() { [[ " $parts " == *" $1 "* ]]; }
has_scenario() { [[ -z "${BENCH_SCENARIOS:-}" || ",$BENCH_SCENARIOS," == *",$1,"* ]]; }
# Prints the environment of the server in Python, or none.
owner_stack() {
  if [ "${PEERS:-}" = none ] || ! has_scenario owner-stack; then
    echo none
  elif [ "${QUICK:-}" = 1 ]; then
    scripts/bench/transformers/install.sh --if-installed
  else
    scripts/bench/transformers/install.sh
  fi
}

if has unary || has stream || has scrapes || has memory; then
  CGO_ENABLED=0 go build -o bin/tandem-engine-mock ./engine
fi
if { has engine || has smollm2; } && [[ -z "${LLAMA_SERVER:-}" ]]; then
  LLAMA_SERVER=$(SERVER=1 scripts/build-llama.sh)/bin/llama-server
fi
[ "${LLAMA_SERVER:-none}" != none ] || unset LLAMA_SERVER
export LLAMA_SERVER="${LLAMA_SERVER:-}"
if has serving; then
  OWNER_STACK="${OWNER_STACK:-$(owner_stack || { echo "bench: the server in Python is left out" >&2; echo none; })}"
  export OWNER_STACK
  PEERS="${PEERS:-$(scripts/build-peers.sh)}"
  [ "$PEERS" != none ] || PEERS=
  export PEERS
  if [ "${QUICK:-}" != 1 ] && [ -z "${BENCH_SCENARIOS:-}" ]; then
    export BENCH_RESULTS="${BENCH_RESULTS:-docs/benchmarks}"
  fi
fi
# shellcheck disable=SC2086
go run ./scripts/bench $parts
if has unary; then
  go test ./schema/wire ./proxy/api -run '^$' -bench . -benchtime 1s
fi
