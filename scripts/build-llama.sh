#!/usr/bin/env bash
# Builds llama.cpp once for each source, flag set, compiler and CPU into a cache outside the tree and prints the
# directory of the result:
#
#   include/  llama.h, ggml*.h; common/, vendor/ and src/ below it for the shim
#   lib/      libllama.so, libllama-common.so, libggml*.so, the backends, libgomp.so.1; all find each other by $ORIGIN;
#             with CUDA libcudart.so and libcublas*.so, too, so that nothing but the driver need be installed
#   bin/      llama-server, with SERVER=1
#
#   scripts/build-llama.sh          build or find; the path on stdout, progress on stderr
#   scripts/build-llama.sh --env    print the exports for a build with -tags llama, for eval; builds llguidance too
#   scripts/build-llama.sh --key    print the path only, without building
#
# Environment: TANDEM_CACHE, LLAMA_CPP_DIR (a checkout instead of the pinned package), LLAMA_TARBALL (a copy of the
# package), VARIANTS=all (every CPU variant, for images), CUDA=1|0 (default: when a toolkit is there; with 1 one is
# fetched, see cuda-toolkit.sh), CUDA_HOME, CUDA_ARCHS (default: this machine's cards, or the usual ones), CUDAHOSTCXX,
# SERVER=1, JOBS, CC, CXX.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=native/source.sh
. "$here/native/source.sh"
# shellcheck source=native/progress.sh
. "$here/native/progress.sh"
# shellcheck source=native/flags.sh
. "$here/native/flags.sh"
# shellcheck source=native/cuda.sh
. "$here/native/cuda.sh"
# shellcheck source=native/recipe.sh
. "$here/native/recipe.sh"

say() { printf 'llama.cpp: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}

# What the result depends on, one line each.
ingredients() {
	if [ -n "${LLAMA_CPP_DIR:-}" ]; then
		checkout_state "$LLAMA_CPP_DIR"
	else
		printf 'package %s\n' "$package_sha512"
	fi
	cat "$here/native/flags.sh" "$here/native/recipe.sh" "${patches[@]}" | sha256sum
	printf '%s\n' "${flags[@]}"
	"${CC:-cc}" --version | head -n 1
	"${CXX:-c++}" --version | head -n 1
	if [ "$cuda" = 1 ]; then
		cuda_ingredients
	fi
}

checkout_state() {
	local dir=$1
	[ -f "$dir/include/llama.h" ] || die "LLAMA_CPP_DIR=$dir is no checkout of llama.cpp"
	if git -C "$dir" rev-parse HEAD 2>/dev/null; then
		git -C "$dir" status --porcelain
		git -C "$dir" diff HEAD | sha256sum
	else
		find "$dir" -type f \( -name '*.c*' -o -name '*.h*' -o -name CMakeLists.txt \) -printf '%P %s %T@\n' | sort | sha256sum
	fi
}

build() {
	local started=$SECONDS
	aside=$(mktemp -d "$root/building.XXXXXX")
	trap 'say "left for inspection: $aside"' EXIT
	if [ "$cuda" = 1 ]; then
		check_host_compiler "$aside"
		say_what_cuda_takes
	fi
	prepare_source "$aside/src"
	compile "$aside/src" "$aside/build" "${server_flags[@]}"
	if [ -d "$result" ]; then
		collect_server "$aside/build" "$result"
	else
		collect "$aside/src" "$aside/build" "$aside/result"
		[ "$cuda" != 1 ] || collect_cuda "$aside/result"
		ingredients >"$aside/result/ingredients.txt"
		mv "$aside/result" "$result"
	fi
	trap - EXIT
	rm -rf "$aside"
	say "built in $((SECONDS - started)) s: $result"
}

is_complete() {
	[ -d "$result" ] && { [ "${SERVER:-0}" != 1 ] || [ -x "$result/bin/llama-server" ]; }
}

# Lazy binding: go-nvml leaves its functions unresolved until NVIDIA's library is there, and some distributions bind
# everything at start.
print_env() {
	local guidance
	guidance=$("$here/build-llguidance.sh")
	cat <<END
export LLAMA='$result'
export CGO_ENABLED=1
export CGO_CFLAGS='-O2 -g -Wno-deprecated-declarations -I$result/include -I$guidance/include'
export CGO_CXXFLAGS='-O2 -g -I$result/include -I$result/include/common -I$result/include/vendor -I$result/include/src'
export CGO_LDFLAGS='-O2 -g -L$result/lib -L$guidance/lib -Wl,-z,lazy'
export LD_LIBRARY_PATH='$result/lib'"\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
export BACKEND_DIR='$result/lib'
END
}

mapfile -t patches < <(find "$here/native/patches" -name '*.patch' 2>/dev/null | sort)
if [ "${1:-}" = --key ]; then
	prepare_cuda --key
else
	prepare_cuda
fi
choose_flags
root=$(cache_root)/llama.cpp
key=$(ingredients | sha256sum | cut -c 1-16)
result=$root/$llama_release-$key

if [ "${1:-}" = --key ]; then
	printf '%s\n' "$result"
	exit 0
fi
if ! is_complete; then
	mkdir -p "$root"
	exec 9>"$root/$llama_release-$key.lock"
	if ! flock -n 9; then
		say "another build of the same is running; waiting for it ..."
		flock 9
	fi
	is_complete || build
fi
if [ "${1:-}" = --env ]; then
	print_env
else
	printf '%s\n' "$result"
fi
