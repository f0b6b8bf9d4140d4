#!/usr/bin/env bash
# Puts together what an image of the engine needs beside the program:
#
#   scripts/gather-libraries.sh LIB PROGRAM SYSTEM
#
# Copies the libraries of directory LIB to lib beside PROGRAM, each once under the name by which it is loaded, stripped.
# What of the CUDA toolkit they need goes there too; the driver's library is left out, since the host brings it. What
# else the system's linker adds, with the linker itself, goes below SYSTEM under its own path, for an image that has
# nothing.
set -euo pipefail

[ $# = 3 ] || { sed -n '4p' "$0" >&2; exit 2; }
lib=$1 program=$2 system=$3
beside=$(dirname "$program")/lib
mkdir -p "$beside" "$system"

name_of() {
	local soname
	soname=$(objdump -p "$1" | awk '$1 == "SONAME" { print $2 }')
	printf '%s\n' "${soname:-$(basename "$1")}"
}

while IFS= read -r file; do
	name=$(name_of "$file")
	cp "$file" "$beside/$name"
	strip --strip-unneeded "$beside/$name"
done < <(find "$lib" -maxdepth 1 -type f -name '*.so*')

# Paths that the linker resolves for a file; what is beside the program already needs no copy.
needed_by() { LD_LIBRARY_PATH="$beside" ldd "$1" | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }'; }

for file in "$program" "$beside"/*; do needed_by "$file"; done | sort -u | while IFS= read -r path; do
	case $(realpath "$path") in
	"$(realpath "$beside")"/*) ;;
	*/libcuda.so*) ;;
	/usr/local/cuda*) cp -L "$path" "$beside/" ;;
	*) mkdir -p "$system$(dirname "$path")" && cp -L "$path" "$system$path" ;;
	esac
done
