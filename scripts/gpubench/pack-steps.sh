# Steps of pack.sh that tests run without a build, read by it. Uses die of the script that reads this file.
# shellcheck shell=bash

# gather_kernels KERNELS LIB: puts the CUDA backend of a build into LIB, with what goes along with it: cudart, as it is,
# as NVIDIA's licence asks, and that licence, where the toolkit had its text. Says for which cards the kernels are.
gather_kernels() {
	local kernels=$1 lib=$2 architectures=''
	[ -f "$kernels/lib/libggml-cuda.so" ] || die "$kernels has no lib/libggml-cuda.so"
	strip --strip-unneeded -o "$lib/libggml-cuda.so" "$kernels/lib/libggml-cuda.so"
	cp -L "$kernels"/lib/libcudart.so.* "$lib/"
	[ ! -f "$kernels/LICENSE.nvidia" ] || cp "$kernels/LICENSE.nvidia" "$lib/"
	if [ -f "$kernels/ingredients.txt" ]; then
		architectures=$(sed -n 's/^-DCMAKE_CUDA_ARCHITECTURES=//p' "$kernels/ingredients.txt")
	fi
	[ -z "$architectures" ] || printf '%s\n' "$architectures" >"$lib/cuda-architectures"
}

# place_pack STAGE DIR: makes DIR of what lies in STAGE, and DIR.tar. What bench-gpu left in DIR stays there, but isn't
# in the archive.
place_pack() {
	local stage=$1 to=$2 names
	mapfile -t names < <(cd "$stage" && printf '%s\n' *)
	mkdir -p "$to"
	mv -f "$stage"/* "$to/"
	tar -c -C "$(dirname "$to")" --owner=0 --group=0 -f "$to.tar" "${names[@]/#/$(basename "$to")/}"
}
