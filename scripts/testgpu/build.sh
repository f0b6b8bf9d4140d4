#!/usr/bin/env bash
# Builds the test GPU (testgpu.cpp) once for each source, library and compiler into a cache outside the tree, some
# seconds, and prints the path of the library. Put into BACKEND_DIR under its name, libggml-testgpu.so, it is a backend
# like any other.
#
#   scripts/testgpu/build.sh        build or find; the path on stdout, progress on stderr
#   scripts/testgpu/build.sh --key  print the path only, without building
#
# Environment: TANDEM_CACHE, LLAMA_CPP_DIR, LLAMA_TARBALL, CXX, and what else chooses the library of build-llama.sh.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../native/source.sh
. "$here/../native/source.sh"

say() { printf 'testgpu: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}

llama=$("$here/../build-llama.sh" --key)
key=$({
	basename "$llama"
	cat "$here/testgpu.cpp" "$here/build.sh" | sha256sum
	"${CXX:-c++}" --version | head -n 1
} | sha256sum | cut -c 1-16)
root=$(cache_root)/testgpu
result=$root/$key/libggml-testgpu.so

# What a backend needs to know of ggml and a program doesn't: the library's build keeps no copy.
internal_headers() {
	local to=$1 header
	for header in ggml-backend-impl.h ggml-impl.h; do
		if [ -n "${LLAMA_CPP_DIR:-}" ]; then
			cp "$LLAMA_CPP_DIR/ggml/src/$header" "$to/"
		else
			git -C "$aside/source" show "HEAD:ggml/src/$header" >"$to/$header"
		fi
	done
}

build() {
	aside=$(mktemp -d "$root/building.XXXXXX")
	trap 'rm -rf "$aside"' EXIT
	mkdir "$aside/include" "$aside/result"
	if [ -z "${LLAMA_CPP_DIR:-}" ]; then
		tar -xzf "$(fetch_tarball)" -C "$aside" "$bundle_path"
		git clone --quiet --bare "$aside/$bundle_path" "$aside/source"
	fi
	internal_headers "$aside/include"
	"${CXX:-c++}" -std=c++17 -O2 -fPIC -shared -fvisibility=hidden -Wall -Wextra -Werror -isystem "$aside/include" -isystem "$llama/include" \
		-o "$aside/result/libggml-testgpu.so" "$here/testgpu.cpp" -L"$llama/lib" -lggml -lggml-base
	rm -rf "${result%/*}"
	mv "$aside/result" "${result%/*}"
	say "built $result"
}

if [ "${1:-}" = --key ]; then
	printf '%s\n' "$result"
	exit 0
fi
if [ ! -f "$result" ]; then
	[ -d "$llama/lib" ] || die "llama.cpp isn't built; run scripts/build-llama.sh"
	mkdir -p "$root"
	exec 9>"$root/$key.lock"
	flock 9
	[ -f "$result" ] || build
fi
printf '%s\n' "$result"
