#!/usr/bin/env bash
# Everything that can be checked without running the programs.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { echo "lint: $*" >&2; }

step gofmt
unformatted=$(git ls-files '*.go' | grep -v '\.capnp\.go$' | xargs gofmt -l)
[ -z "$unformatted" ] || { echo "not formatted: $unformatted" >&2; exit 1; }

step go vet
go vet ./...
go vet -tags noui ./proxy/server

step staticcheck
go tool -modfile=scripts/tools/go.mod staticcheck ./...

if [ -x "$(command -v cc || true)" ] && [ -d "$(scripts/build-llama.sh --key)" ] && [ -d "$(scripts/build-llguidance.sh --key)" ]; then
  step "go vet and staticcheck with llama.cpp"
  eval "$(scripts/build-llama.sh --env)"
  go vet -tags llama ./...
  go tool -modfile=scripts/tools/go.mod staticcheck -tags llama ./engine/... ./scripts/...
else
  step "llama.cpp isn't built (make build): the checks with it are left out"
fi

step import rules
scripts/check-imports.sh

step generated docs
go run ./scripts/docs -check

step generated licence lists
go run ./scripts/licences -check
if guidance=$(scripts/build-llguidance.sh --key 2>/dev/null) && [ -d "$guidance" ]; then
  cmp "$guidance/licences.txt" scripts/licences/extra/llguidance.txt ||
    { echo "scripts/licences/extra/llguidance.txt is stale; copy $guidance/licences.txt there and run: go run ./scripts/licences" >&2; exit 1; }
fi

step generated rules and dashboards
go run ./scripts/rules -check

step generated schema code
if command -v capnp >/dev/null; then
  before=$(sha256sum schema/engine.capnp.go)
  go generate ./schema
  [ "$before" = "$(sha256sum schema/engine.capnp.go)" ] || { echo "schema/engine.capnp.go was stale; commit the new one" >&2; exit 1; }
else
  step "capnp isn't installed: whether schema/engine.capnp.go is current was not checked"
fi
