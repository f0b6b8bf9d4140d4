#!/usr/bin/env bash
# Builds what Tandem is measured beside: llama-server and llama-batched-bench from the same source, flags and compiler
# as the engine's library, but without our patches, which is what their users run. Where the CPU has AMX the patch of
# its tile configuration is applied all the same: without it they end with an illegal instruction. Prints the directory
# of the result; progress goes to stderr. Takes about five minutes on two cores, once; kept in the cache outside the
# tree.
#
# Environment: as for build-llama.sh.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=native/source.sh
. "$here/native/source.sh"
# shellcheck source=native/progress.sh
. "$here/native/progress.sh"
# shellcheck source=native/flags.sh
. "$here/native/flags.sh"
# shellcheck source=native/recipe.sh
. "$here/native/recipe.sh"

say() { printf 'peers: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}

patches=() # the point of this script
if cpu_has amx_int8; then
	patches=("$here/native/patches/0003-amx-tile-configuration.patch")
fi
export SERVER=1
choose_flags
targets+=(llama-batched-bench)
flags+=("${server_flags[@]}")
if [ "$cuda" = 1 ]; then
	flags+=("${kernel_flags[@]}") targets+=("${kernel_targets[@]}")
fi
key=$({
	printf '%s\n' "$package_sha512" "${LLAMA_CPP_DIR:-}" "${flags[@]}" "${targets[@]}"
	if [ "${#patches[@]}" -gt 0 ]; then sha256sum <"${patches[0]}"; fi
	"${CC:-cc}" --version | head -n 1
	"${CXX:-c++}" --version | head -n 1
} | sha256sum | cut -c 1-16)
root=$(cache_root)/peers
result=$root/$llama_release-$key

mkdir -p "$root"
exec 9>"$result.lock"
flock 9
if [ ! -d "$result" ]; then
	aside=$(mktemp -d "$root/building.XXXXXX")
	trap 'say "left for inspection: $aside"' EXIT
	prepare_source "$aside/src"
	compile "$aside/src" "$aside/build" "${flags[@]}" -- "${targets[@]}"
	mkdir -p "$aside/result"
	# They look for backends in their own folder, so everything lies in one.
	find "$aside/build/bin" -maxdepth 1 \( -name '*.so*' -o -name llama-server -o -name llama-batched-bench \) \
		-exec cp -a {} "$aside/result/" \;
	cp "$aside/src/LICENSE" "$aside/result/"
	mv "$aside/result" "$result"
	trap - EXIT
	rm -rf "$aside"
fi
printf '%s\n' "$result"
