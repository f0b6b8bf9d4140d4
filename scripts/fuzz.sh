#!/usr/bin/env bash
# Runs every fuzz target for the given time, one after another.
#   scripts/fuzz.sh 1m
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-1m}
if git grep -qE '^//go:build llama' -- '*_test.go'; then
  env_lines=$(scripts/build-llama.sh --env)
  eval "$env_lines"
fi
git grep -lE '^func Fuzz' -- '*_test.go' | sort | while read -r file; do
  tags=
  if grep -q '^//go:build llama' "$file"; then tags=llama; fi
  grep -oE '^func Fuzz[A-Za-z0-9_]*' "$file" | awk '{print $2}' | while read -r target; do
    echo "fuzz: $(dirname "$file") $target for $time" >&2
    go test "./$(dirname "$file")" -tags "$tags" -run '^$' -fuzz "^$target\$" -fuzztime "$time"
  done
done
