#!/usr/bin/env bash
# Checks what Prometheus and Grafana load: that the generated files are current and name only what the catalogue has, that Prometheus
# can read rules, dashboard queries and configurations, and that every alert fires when it should and only then.
# PROMTOOL names a promtool of version 3; without it bin/promtool is used, and built once if need be (minutes).
set -euo pipefail
cd "$(dirname "$0")/.."

step() { echo "check-rules: $*" >&2; }

step "generated files"
go run ./scripts/rules -check

promtool=${PROMTOOL:-bin/promtool}
if [ ! -x "$(command -v "$promtool" || true)" ]; then
  [ -z "${PROMTOOL:-}" ] || { echo "check-rules: PROMTOOL=$PROMTOOL can't be run" >&2; exit 1; }
  step "building promtool, which takes some minutes"
  go build -modfile=scripts/tools/go.mod -o bin/promtool github.com/prometheus/prometheus/cmd/promtool
fi

quietly() { # shows what a command said only when it fails
  local said
  said=$("$@" 2>&1) || { echo "$said" >&2; return 1; }
}

dir=$(mktemp -d "${TMPDIR:-/tmp}/check-rules.XXXXXX")
trap 'rm -rf "$dir"' EXIT

step rules
quietly "$promtool" check rules --lint=all --lint-fatal deploy/prometheus/*.rules.yaml

step "rules with short durations"
go run ./scripts/rules -into "$dir/short" -divide 30 2>/dev/null
quietly "$promtool" check rules "$dir"/short/*.rules.yaml

step "queries of the dashboards"
go run ./scripts/rules -query-rules >"$dir/queries.yaml"
quietly "$promtool" check rules "$dir/queries.yaml"

step configurations
quietly "$promtool" check config deploy/prometheus/prometheus*.yaml

step "tests of the rules"
quietly "$promtool" test rules deploy/prometheus/*_test.yaml
step "all good"
