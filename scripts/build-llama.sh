#!/usr/bin/env bash
# Builds llama.cpp once for each source, flag set, compiler and CPU into a cache outside the tree and prints the
# directory of the result:
#
#   include/  llama.h, ggml*.h; common/, vendor/ and src/ below it for the shim
#   lib/      libllama.so, libllama-common.so, libggml*.so, the backends, libgomp.so.1; all find each other by $ORIGIN;
#             with CUDA libcudart.so and libcublas*.so, too, so that nothing but the driver need be installed
#   bin/      llama-server, with SERVER=1
#
# CUDA's backend has a place of its own in the cache, by what it depends on: other variants of the CPU's code and
# changes outside of ggml don't compile it again.
#
#   scripts/build-llama.sh          build or find; the path on stdout, progress on stderr
#   scripts/build-llama.sh --env    print the exports for a build with -tags llama, for eval; builds llguidance too
#   scripts/build-llama.sh --key    print the path only, without building
#   scripts/build-llama.sh --kernels        build or find CUDA's backend alone (CUDA=1), with NVIDIA's libraries
#   scripts/build-llama.sh --kernels-key    print its path only
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
	compilers
	[ "$cuda" != 1 ] || basename "$kernels"
}

# What CUDA's backend depends on: of the patches the files of ggml, but for the CPU's backend.
kernel_ingredients() {
	if [ -n "${LLAMA_CPP_DIR:-}" ]; then
		checkout_state "$LLAMA_CPP_DIR"
	else
		printf 'package %s\n' "$package_sha512"
	fi
	awk '/^diff --git / { keep = $3 ~ /^a\/ggml\// && $3 !~ /^a\/ggml\/src\/ggml-cpu\// } keep' "${patches[@]}" | sha256sum
	declare -f compile build_kernels
	printf '%s\n' "${kernel_flags[@]}"
	compilers
	cuda_ingredients
}

compilers() {
	"${CC:-cc}" --version | head -n 1
	"${CXX:-c++}" --version | head -n 1
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
	begin_build
	compile "$aside/src" "$aside/build" "${flags[@]}" "${server_flags[@]}" -- "${targets[@]}"
	if [ -d "$result" ]; then
		collect_server "$aside/build" "$result"
	else
		collect "$aside/src" "$aside/build" "$aside/result"
		[ "$cuda" != 1 ] || add_kernels "$aside/result"
		ingredients >"$aside/result/ingredients.txt"
		mv "$aside/result" "$result"
	fi
	end_build
	say "built in $((SECONDS - started)) s: $result"
}

begin_build() {
	aside=$(mktemp -d "$root/building.XXXXXX")
	trap 'say "left for inspection: $aside"' EXIT
	prepare_source "$aside/src"
}

end_build() {
	trap - EXIT
	rm -rf "$aside"
}

build_kernels() {
	local started=$SECONDS
	begin_build
	check_host_compiler "$aside"
	say_what_cuda_takes
	compile "$aside/src" "$aside/build" "${kernel_flags[@]}" -- "${kernel_targets[@]}"
	mkdir -p "$aside/result/lib"
	cp "$aside/build/bin/libggml-cuda.so" "$aside/result/lib/"
	collect_cuda "$aside/result"
	kernel_ingredients >"$aside/result/ingredients.txt"
	mv "$aside/result" "$kernels"
	end_build
	say "CUDA's backend was built in $((SECONDS - started)) s: $kernels"
}

# Puts CUDA's backend, and what it needs, into the result $1, as links where the file system lets.
add_kernels() {
	cp -al "$kernels/lib/." "$1/lib/" 2>/dev/null || cp -a "$kernels/lib/." "$1/lib/"
	say_if_without_licence "$kernels/LICENSE.nvidia"
	[ ! -f "$kernels/LICENSE.nvidia" ] || cp "$kernels/LICENSE.nvidia" "$1/"
}

# once NAME STEP…: runs the step under a lock of that name.
once() {
	mkdir -p "$root"
	exec 9>"$root/$1.lock"
	if ! flock -n 9; then
		say "another build of the same is running; waiting for it ..."
		flock 9
	fi
	shift
	"$@"
	exec 9>&-
}

build_kernels_unless_there() { kernels_are_complete || build_kernels; }
build_unless_there() { is_complete || build; }
kernels_are_complete() { [ "$cuda" != 1 ] || [ -d "$kernels" ]; }

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
case ${1:-} in
--key | --kernels-key) prepare_cuda --key ;;
*) prepare_cuda ;;
esac
choose_flags
root=$(cache_root)/llama.cpp
kernels=
if [ "$cuda" = 1 ]; then
	kernels=$root/cuda-$llama_release-$(kernel_ingredients | sha256sum | cut -c 1-16)
fi
result=$root/$llama_release-$(ingredients | sha256sum | cut -c 1-16)

case ${1:-} in
--key)
	printf '%s\n' "$result"
	exit 0
	;;
--kernels-key | --kernels)
	[ "$cuda" = 1 ] || die "only a build with CUDA=1 has CUDA's backend"
	[ "$1" = --kernels-key ] || kernels_are_complete || once "$(basename "$kernels")" build_kernels_unless_there
	printf '%s\n' "$kernels"
	exit 0
	;;
esac
if ! is_complete; then
	kernels_are_complete || once "$(basename "$kernels")" build_kernels_unless_there
	once "$(basename "$result")" build_unless_there
fi
if [ "${1:-}" = --env ]; then
	print_env
else
	printf '%s\n' "$result"
fi
