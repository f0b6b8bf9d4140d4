#!/usr/bin/env bash
# Checks what Prometheus and Grafana load: that the generated files are current and name only what the catalogue has,
# that Prometheus can read rules, dashboard queries and configurations, and that every alert fires when it should and
# only then. PROMTOOL and AMTOOL name a promtool of version 3 and an amtool; without them those in bin/ are used, and
# built once if need be (minutes).
set -euo pipefail
cd "$(dirname "$0")/.."

step() { echo "check-rules: $*" >&2; }

step "generated files"
go run ./scripts/rules -check

tool() { # tool NAME PACKAGE GIVEN: the program to use
  local path=${3:-bin/$1}
  if [ ! -x "$(command -v "$path" || true)" ]; then
    [ -z "$3" ] || { echo "check-rules: $path can't be run" >&2; return 1; }
    step "building $1, which takes some minutes"
    go build -modfile=scripts/tools/go.mod -o "bin/$1" "$2" >&2 || return 1
  fi
  echo "$path"
}
promtool=$(tool promtool github.com/prometheus/prometheus/cmd/promtool "${PROMTOOL:-}")
amtool=$(tool amtool github.com/prometheus/alertmanager/cmd/amtool "${AMTOOL:-}")

quietly() { # shows what a command output only when it fails
  local output
  output=$("$@" 2>&1) || { echo "$output" >&2; return 1; }
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

step "Alertmanager's configuration"
quietly "$amtool" check-config deploy/alertmanager/alertmanager.yaml
for pair in critical:pager warning:morning; do
  receiver=$("$amtool" config routes test --config.file=deploy/alertmanager/alertmanager.yaml "severity=${pair%:*}" alertname=LLMEngineDown)
  [ "$receiver" = "${pair#*:}" ] || { echo "check-rules: severity ${pair%:*} goes to $receiver, not ${pair#*:}" >&2; exit 1; }
done

step "tests of the rules"
quietly "$promtool" test rules deploy/prometheus/*_test.yaml
step "all good"
