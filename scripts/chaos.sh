#!/usr/bin/env bash
# Kills engines under load and compares every answer with the undisturbed one, then does the other things to a running
# server that it should survive. Figures are printed; what docs/restarts.md promises is asserted. About ten minutes.
# CHAOS_KILLS, CHAOS_REQUESTS, CHAOS_CLIENTS, CHAOS_PAUSES: how much of it. CHAOS_REPLAY=decode: the other way to
# replay. CHAOS_MOCK=true: the mock engine, which needs no C compiler. SMOLLM2: file of the real model that is killed,
# too (make chaos sets it). Arguments go to go test.
set -euo pipefail
cd "$(dirname "$0")/.."

tags=llama
if [ "${CHAOS_MOCK:-false}" = true ]; then
  tags=
else
  env_lines=$(scripts/build-llama.sh --env)
  eval "$env_lines"
fi
export CHAOS_KILLS=${CHAOS_KILLS:-100} CHAOS_REQUESTS=${CHAOS_REQUESTS:-1000} CHAOS_CLIENTS=${CHAOS_CLIENTS:-64} CHAOS_PAUSES=${CHAOS_PAUSES:-30}
# One after the other, so that pauses are measured on a machine that does nothing else.
exec go test -tags "$tags" -count=1 -parallel=1 -timeout=90m -v -run 'EngineIsKilled|Pause|TestRestart|EngineRestart|Poison|HandOver|Drain|Hung|CrashLoop|LoadKills|NearlyTied|Versions' "$@" ./scripts/e2e/
