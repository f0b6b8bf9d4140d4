#!/usr/bin/env bash
# Runs every fuzz target for the given time, one after another.
#   scripts/fuzz.sh 1m
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-1m}
git grep -lE '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u | while read -r dir; do
  grep -hoE '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | awk '{print $2}' | sort -u | while read -r target; do
    echo "fuzz: $dir $target for $time" >&2
    go test "./$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$time"
  done
done
