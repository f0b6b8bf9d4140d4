#!/usr/bin/env bash
# Puts together what an image of the engine needs beside the program:
#
#   scripts/gather-libraries.sh LIB PROGRAM SYSTEM
#
# Copies the libraries of directory LIB to lib beside PROGRAM, each once under the name by which it is loaded, stripped
# unless it is NVIDIA's, whose licence wants its files as they are and goes there, too. What else the system's linker
# adds, with the linker itself, goes below SYSTEM under its own path, for an image that has nothing. A library that
# isn't found is an error, except the driver's, which the host brings.
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
	case $name in
	libcudart.so* | libcublas*.so*) ;;
	*) strip --strip-unneeded "$beside/$name" ;;
	esac
done < <(find "$lib" -maxdepth 1 -type f -name '*.so*')
if [ -f "$lib/../LICENSE.nvidia" ]; then
	cp "$lib/../LICENSE.nvidia" "$beside/"
elif compgen -G "$beside/libcudart.so*" >/dev/null; then
	printf 'gather-libraries: the text of the licence of NVIDIA is missing: add it as %s before you pass its libraries on\n' "$beside/LICENSE.nvidia" >&2
fi

missing_for() { LD_LIBRARY_PATH="$beside" ldd "$1" | awk '/=> not found/ && $1 !~ /^libcuda\.so/ { print $1 }'; }

for file in "$program" "$beside"/*.so*; do
	missing=$(missing_for "$file" | paste -sd ' ')
	if [ -n "$missing" ]; then
		printf 'gather-libraries: %s needs %s, which is neither in %s nor on this machine\n' "$file" "$missing" "$lib" >&2
		exit 1
	fi
done

# Paths that the linker resolves for a file; what is beside the program already needs no copy.
needed_by() { LD_LIBRARY_PATH="$beside" ldd "$1" | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }'; }

for file in "$program" "$beside"/*.so*; do needed_by "$file"; done | sort -u | while IFS= read -r path; do
	case $(realpath "$path") in
	"$(realpath "$beside")"/*) ;;
	*/libcuda.so*) ;;
	*) mkdir -p "$system$(dirname "$path")" && cp -L "$path" "$system$path" ;;
	esac
done
