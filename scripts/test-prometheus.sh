#!/usr/bin/env bash
# Runs scripts/prometheus: a real Prometheus watches real proxies, faults are injected, and the right alerts have to be
# raised. About two minutes, the first time some more: bin/prometheus is built then. PROMETHEUS names another one of
# version 3. After a failure the logs of all programs are kept; the last lines say where.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { echo "test-prometheus: $*" >&2; }

prometheus=${PROMETHEUS:-bin/prometheus}
if [ ! -x "$(command -v "$prometheus" || true)" ]; then
  [ -z "${PROMETHEUS:-}" ] || { step "PROMETHEUS=$PROMETHEUS can't be run"; exit 1; }
  step "building prometheus, which takes some minutes"
  go build -modfile=scripts/tools/go.mod -o bin/prometheus github.com/prometheus/prometheus/cmd/prometheus
fi

dir=$(mktemp -d "${TMPDIR:-/tmp}/test-prometheus.XXXXXX")
step "building proxy and mock engine"
export CGO_ENABLED=0
go build -o "$dir/tandem-proxy" ./proxy
go build -o "$dir/tandem-engine" ./engine
go build -o "$dir/rules" ./scripts/rules
mkdir "$dir/logs"

code=0
PROMETHEUS=$(realpath "$(command -v "$prometheus")") PROXY=$dir/tandem-proxy ENGINE=$dir/tandem-engine RULES=$dir/rules LOGS=$dir/logs \
  go test -count=1 -timeout 6m -v ./scripts/prometheus || code=$?
if [ "$code" != 0 ]; then
  step "failed; logs of all programs are in $dir/logs"
  exit "$code"
fi
rm -rf "$dir"
step "all good"
