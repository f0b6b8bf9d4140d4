#!/usr/bin/env bash
# Builds llama.cpp once for each source, flag set, compiler and CPU into a cache outside the tree and prints the directory of the result:
#
#   include/  llama.h, ggml*.h; common/, vendor/ and src/ below it for the shim
#   lib/      libllama.so, libllama-common.so, libggml*.so, the backends, libgomp.so.1; all find each other by $ORIGIN
#   bin/      llama-server, with SERVER=1
#
#   scripts/build-llama.sh          build or find; the path on stdout, progress on stderr
#   scripts/build-llama.sh --env    print the exports that a build with -tags llama needs, for eval
#   scripts/build-llama.sh --key    print the path only, without building
#
# Environment: TANDEM_CACHE, LLAMA_CPP_DIR (a checkout instead of the pinned package), LLAMA_TARBALL (a copy of the package),
# VARIANTS=all (every CPU variant, for images), CUDA=1|0 (default: when nvcc is there), CUDA_ARCHS, SERVER=1, JOBS, CC, CXX.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=native/source.sh
. "$here/native/source.sh"
# shellcheck source=native/flags.sh
. "$here/native/flags.sh"

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
	cat "$here/build-llama.sh" "$here/native/flags.sh" "${patches[@]}" | sha256sum
	printf '%s\n' "${flags[@]}"
	"${CC:-cc}" --version | head -n 1
	"${CXX:-c++}" --version | head -n 1
	if [ "$cuda" = 1 ]; then
		nvcc --version | tail -n 2
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

fetch_tarball() {
	local tarball dir
	tarball=$(tarball_path)
	if [ ! -s "$tarball" ]; then
		[ -z "${LLAMA_TARBALL:-}" ] || die "LLAMA_TARBALL=$LLAMA_TARBALL doesn't exist"
		command -v npm >/dev/null || die "npm is needed to fetch $package_name; run scripts/bootstrap.sh"
		dir=$(dirname "$tarball")
		mkdir -p "$dir"
		dir=$(mktemp -d "$dir/fetch.XXXXXX")
		say "fetching $package_name@$package_version (34 MiB) ..."
		(cd "$dir" && npm pack --silent "$package_name@$package_version" >/dev/null) || die "npm pack $package_name@$package_version failed"
		check_tarball "$dir/$package_name-$package_version.tgz"
		mv "$dir/$package_name-$package_version.tgz" "$tarball"
		rmdir "$dir"
	fi
	check_tarball "$tarball"
	printf '%s\n' "$tarball"
}

check_tarball() {
	printf '%s  %s\n' "$package_sha512" "$1" | sha512sum --check --status ||
		die "$1 has another checksum than the pinned one; remove it and try again"
}

# Leaves a patched source tree in $1.
prepare_source() {
	local to=$1 tarball patch
	if [ -n "${LLAMA_CPP_DIR:-}" ]; then
		say "copying $LLAMA_CPP_DIR ..."
		cp -a "$LLAMA_CPP_DIR" "$to"
	else
		tarball=$(fetch_tarball)
		say "unpacking $llama_release ..."
		tar -xzf "$tarball" -C "$aside" "$bundle_path"
		git -c advice.detachedHead=false clone --quiet "$aside/$bundle_path" "$to"
		rm -rf "$aside/package"
	fi
	for patch in "${patches[@]}"; do
		say "applying $(basename "$patch")"
		git -C "$to" apply "$patch"
	done
}

# Compiles the targets of $1 (source) into $2 (build directory), a progress line every 5 %.
compile() {
	local src=$1 build=$2
	shift 2
	say "configuring ..."
	cmake -S "$src" -B "$build" -G Ninja "${flags[@]}" "$@" >"$aside/configure.log" 2>&1 || {
		tail -n 30 "$aside/configure.log" >&2
		die "cmake failed; $aside/configure.log has all of it"
	}
	say "compiling ${targets[*]} with ${JOBS:-$(nproc)} jobs ..."
	NINJA_STATUS='[%f/%t] ' ninja -C "$build" -j "${JOBS:-$(nproc)}" "${targets[@]}" 2>&1 | tee "$aside/compile.log" |
		awk -F'[][/]' '/^\[/ { p = int(20 * $2 / $3); if (p != last) { printf "llama.cpp: %d of %d steps\n", $2, $3 > "/dev/stderr"; last = p } }' || {
		grep -A 15 -m 3 'error:\|FAILED' "$aside/compile.log" >&2 || tail -n 30 "$aside/compile.log" >&2
		die "the compiler failed; $aside/compile.log has all of it"
	}
}

# Copies what the engine's build and run need from source $1 and build directory $2 into $3.
collect() {
	local src=$1 build=$2 to=$3 gomp
	mkdir -p "$to/lib" "$to/include/common" "$to/include/vendor" "$to/include/src"
	cp "$src"/include/*.h "$src"/ggml/include/*.h "$to/include/"
	(cd "$src/common" && find . -name '*.h' -o -name '*.hpp' | cpio_copy "$to/include/common")
	(cd "$src/vendor" && find nlohmann -name '*.hpp' | cpio_copy "$to/include/vendor")
	cp "$src"/src/*.h "$to/include/src/"
	cp "$src/LICENSE" "$to/LICENSE"
	find "$build/bin" -maxdepth 1 -name '*.so*' -exec cp -a {} "$to/lib/" \;
	gomp=$("${CC:-cc}" -print-file-name=libgomp.so.1)
	if [ -f "$gomp" ]; then
		cp -L "$gomp" "$to/lib/libgomp.so.1"
	fi
	collect_server "$build" "$to"
}

collect_server() {
	local build=$1 to=$2
	[ -x "$build/bin/llama-server" ] || return 0
	mkdir -p "$to/bin"
	find "$build/bin" -maxdepth 1 -name '*.so*' -exec cp -an {} "$to/lib/" \;
	cp "$build/bin/llama-server" "$to/bin/llama-server.new"
	mv "$to/bin/llama-server.new" "$to/bin/llama-server"
}

cpio_copy() { tar -c -T - | tar -x -C "$1"; }

build() {
	local started=$SECONDS
	aside=$(mktemp -d "$root/building.XXXXXX")
	trap 'say "left for inspection: $aside"' EXIT
	prepare_source "$aside/src"
	compile "$aside/src" "$aside/build" "${server_flags[@]}"
	if [ -d "$result" ]; then
		collect_server "$aside/build" "$result"
	else
		collect "$aside/src" "$aside/build" "$aside/result"
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

print_env() {
	cat <<END
export LLAMA='$result'
export CGO_ENABLED=1
export CGO_CFLAGS='-O2 -g -I$result/include'
export CGO_CXXFLAGS='-O2 -g -I$result/include -I$result/include/common -I$result/include/vendor -I$result/include/src'
export CGO_LDFLAGS='-O2 -g -L$result/lib'
export LD_LIBRARY_PATH='$result/lib'"\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
export BACKEND_DIR='$result/lib'
END
}

mapfile -t patches < <(find "$here/native/patches" -name '*.patch' 2>/dev/null | sort)
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
