#!/usr/bin/env bash
# Tries constrained output on JSON schemas with known instances (scripts/schemas says what is counted):
#
#   scripts/schemas.sh [FILE…]
#
# Without files it takes those of the JSON Schema Test Suite, drafts 7 and 2020-12, as the source archive of PyPI's
# jsonschema carries them. Environment: MODEL_FILE (a GGUF file whose vocabulary is used; default: SmolLM2's),
# TANDEM_CACHE.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=native/source.sh
. scripts/native/source.sh

suite_package=jsonschema
suite_version=4.23.0
suite_sha256=d71497fef26351a33265337fa77ffeb82423f3ea21283cd9467bb03999266bc4

die() {
	printf 'schemas: %s\n' "$*" >&2
	exit 1
}

# Prints the directory with the suite's tests.
suite() {
	local dir archive
	dir=$(cache_root)/download
	archive=$dir/$suite_package-$suite_version.tar.gz
	mkdir -p "$dir"
	if [ ! -s "$archive" ]; then
		command -v pip3 >/dev/null || die "pip3 is needed to fetch $suite_package $suite_version; install python3-pip, or name files"
		printf 'schemas: fetching %s %s ...\n' "$suite_package" "$suite_version" >&2
		pip3 download --quiet --no-deps --no-binary "$suite_package" --dest "$dir" "$suite_package==$suite_version" >&2 || true
		[ -s "$archive" ] || die "pip3 download $suite_package==$suite_version brought nothing"
	fi
	printf '%s  %s\n' "$suite_sha256" "$archive" | sha256sum --check --status || die "$archive has another checksum than the pinned one; remove it and try again"
	tar -xzf "$archive" -C "$dir" "$suite_package-$suite_version/json/tests"
	printf '%s\n' "$dir/$suite_package-$suite_version/json/tests"
}

files=("$@")
strict=(-strict)
if [ "${#files[@]}" -eq 0 ]; then
	strict=()
	tests=$(suite)
	files=("$tests"/draft2020-12/*.json "$tests"/draft7/*.json)
fi
model=${MODEL_FILE:-$(scripts/models/fetch.sh smollm2)}
env_lines=$(scripts/build-llama.sh --env)
eval "$env_lines"
go run -tags llama ./scripts/schemas -model "$model" "${strict[@]}" "${files[@]}"
