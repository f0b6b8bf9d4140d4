#!/usr/bin/env bash
# Tries the clients that people use against both programs: builds them, installs the clients in their pinned versions,
# and runs scripts/clients. Arguments are names of suites (openai-python, vercel-node, …); all by default.
#
# The Python libraries go into virtual environments in the cache, one each, since they want different versions of each
# other; those for Node into scripts/clients/node/node_modules. The log of everything is out/clients.log.
#
# Environment: ENGINE=mock (without llama.cpp and model; default: llama with SmolLM2), PYTHON (3.11 or later; default:
# python3), TANDEM_CACHE, ALLOW_PENDING, ONLY_CASES (see scripts/clients/main.go). Needs Node 20 or later.
set -euo pipefail
shopt -s inherit_errexit # what fails inside of $(…) ends it
cd "$(dirname "$0")/.."
# shellcheck source=native/source.sh
. scripts/native/source.sh

say() { printf 'test-clients: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}

python=${PYTHON:-python3}
"$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
	die "$python must be Python 3.11 or later with venv (Debian: apt-get install python3-venv)"
command -v npm >/dev/null || die "npm is missing (Node 20 or later)"

environments=$(cache_root)/clients/$("$python" -c 'import sys; print(f"python{sys.version_info.major}.{sys.version_info.minor}")')
mkdir -p "$environments"

# An environment is complete when it has a copy of the list from which it was made.
install_python() {
	local lock=$1 home
	home=$environments/$(basename "$lock" .txt)
	if cmp -s "$lock" "$home/lock.txt"; then return; fi
	say "installing $(basename "$lock" .txt) for Python"
	rm -rf "$home"
	"$python" -m venv "$home"
	"$home/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary=:all: -r "$lock" >&2
	cp "$lock" "$home/lock.txt"
}

exec 9>"$environments/lock"
flock 9 # somebody else may be installing
for lock in scripts/clients/python/locks/*.txt; do install_python "$lock"; done
exec 9>&-

(
	cd scripts/clients/node
	if [ ! -d node_modules ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
		say "installing the clients for Node"
		npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2
	fi
)

mkdir -p bin
export PROXY=bin/tandem-proxy ENGINE_PROGRAM PYTHON_ENVIRONMENTS=$environments
if [ "${ENGINE:-llama}" = mock ]; then
	say "building the proxy and the mock engine"
	ENGINE_PROGRAM=bin/tandem-engine-mock
	CGO_ENABLED=0 go build -o "$ENGINE_PROGRAM" ./engine
	CGO_ENABLED=0 go build -o "$PROXY" ./proxy
else
	say "building both programs"
	ENGINE_PROGRAM=bin/tandem-engine
	make --no-print-directory build UI=0
	MODEL_FILE=$(scripts/models/fetch.sh smollm2)
	export MODEL_FILE BACKEND_DIR=$PWD/bin/lib
fi
go build -o bin/test-clients ./scripts/clients
exec bin/test-clients "$@"
