#!/usr/bin/env bash
# Prints the directory of a CUDA toolkit: CUDA_HOME, the one of nvcc on the PATH, or /usr/local/cuda; where none of
# these is there, one is put together once out of pinned wheels on PyPI (native/cuda-wheels), into a cache outside the
# tree and without root:
#
#   bin/, nvvm/, include/   nvcc and what it needs
#   lib/                    libcudart.so, libcublas.so; stubs/libcuda.so, to link against where there is no driver
#   EULA.txt                NVIDIA's licence
#
#   scripts/cuda-toolkit.sh          find or put together; the path on stdout, progress on stderr
#   scripts/cuda-toolkit.sh --key    print the path only, without fetching
#
# Environment: TANDEM_CACHE, CUDA_HOME, CC, PYTHON (one with pip; default: python3), and pip's variables.
set -euo pipefail
shopt -s inherit_errexit # what fails inside of $(…) ends it

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=native/source.sh
. "$here/native/source.sh"
# shellcheck source=native/wheels.sh
. "$here/native/wheels.sh"
# shellcheck source=native/cuda.sh
. "$here/native/cuda.sh"
wheels=$here/native/cuda-wheels
release=13.0.2

say() { printf 'cuda: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}

# The lines of the table, without its comments.
rows() { grep -v '^#' "$wheels"; }

# What the result depends on. Not the whole of this file, since half a gigabyte would be fetched for a comment.
ingredients() {
	rows
	declare -f assemble stub_driver
}

fetch() {
	local python table row wheel package version megabytes sha256 number=0 started=$SECONDS
	[ "$(uname -m)" = x86_64 ] || die "the wheels are pinned for x86-64 only; install NVIDIA's toolkit and set CUDA_HOME"
	python=$(find_python "CUDA $release")
	rm -rf "$aside" # what a killed one left
	mkdir -p "$aside"
	trap 'rm -rf "$aside"' EXIT
	mapfile -t table < <(rows)
	say "no CUDA toolkit is installed; fetching $release from PyPI ($(rows | awk '{ sum += $3 } END { printf "%.0f", sum }') MB, 0.9 GB unpacked)"
	for row in "${table[@]}"; do
		read -r package version megabytes sha256 <<<"$row"
		number=$((number + 1))
		say "fetching $package $version ($megabytes MB, $number of ${#table[@]}) ..."
		wheel=$(fetch_wheel "$python" "$package" "$version" "$sha256" "$aside")
		"$python" -m zipfile -e "$wheel" "$aside/unpacked"
		rm "$wheel"
	done
	assemble "$aside/unpacked/nvidia/cu13"
	mv "$aside/unpacked/nvidia/cu13" "$home"
	say "put together in $((SECONDS - started)) s: $home"
	say "NVIDIA's licence applies to it and to libcudart and libcublas in what you build: $home/EULA.txt"
}

# Makes of the unpacked wheels what compilers and CMake look for: wheels have neither links nor run bits.
assemble() {
	local to=$1 name licence
	rm -rf "$to/.metadata" "$to"/lib/libnvblas.so.*
	chmod +x "$to"/bin/* "$to"/nvvm/bin/*
	ln -s lib "$to/lib64"
	for name in cudart cublas cublasLt nvvm; do
		ln -s "$(cd "$to/lib" && echo "lib$name".so.*)" "$to/lib/lib$name.so"
	done
	mkdir "$to/lib/stubs"
	stub_driver "$to" "$to/lib/stubs"
	licence=$(find "$aside/unpacked" -path '*nvidia_cuda_runtime*/License.txt')
	[ -s "$licence" ] || die "the wheels have no licence text"
	cp "$licence" "$to/EULA.txt"
	"$to/bin/nvcc" --version >/dev/null || die "nvcc of the wheels doesn't run here"
}

# The driver's library is only linked against, with every function that its header declares.
stub_driver() {
	local toolkit=$1 to=$2
	"${CC:-cc}" -E -P "$toolkit/include/cuda.h" | grep -oE '\bcu[A-Z][A-Za-z0-9_]* *\(' | tr -d ' (' | sort -u |
		sed 's|.*|int &(void) { return 34; } // CUDA_ERROR_STUB_LIBRARY|' >"$aside/stub.c"
	"${CC:-cc}" -shared -fPIC -O1 -Wl,-soname,libcuda.so.1 -o "$to/libcuda.so" "$aside/stub.c" ||
		die "${CC:-cc} can't compile the stub of the driver's library"
}

if toolkit=$(installed_toolkit); then
	printf '%s\n' "$toolkit"
	exit 0
fi
[ -z "${CUDA_HOME:-}" ] || die "CUDA_HOME=$CUDA_HOME has no bin/nvcc"
home=$(cache_root)/cuda/$release-$(ingredients | sha256sum | cut -c 1-16)
aside=$home.part

if [ "${1:-}" = --key ]; then
	printf '%s\n' "$home"
	exit 0
fi
if [ ! -d "$home" ]; then
	mkdir -p "$(dirname "$home")"
	exec 9>"$home.lock"
	if ! flock -n 9; then
		say "somebody else is putting the toolkit together; waiting ..."
		flock 9
	fi
	[ -d "$home" ] || fetch
fi
printf '%s\n' "$home"
