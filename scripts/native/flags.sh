# CMake flags and targets for llama.cpp, read by build-llama.sh.
# shellcheck shell=bash
# shellcheck disable=SC2034 # used by the script that reads this file

# One name of /proc/cpuinfo and the GGML switch that uses it.
x86_features="sse4_2 SSE42
f16c F16C
fma FMA
bmi2 BMI2
avx AVX
avx2 AVX2
avx_vnni AVX_VNNI
avx512bw AVX512
avx512vbmi AVX512_VBMI
avx512_vnni AVX512_VNNI
avx512_bf16 AVX512_BF16
amx_tile AMX_TILE
amx_int8 AMX_INT8
amx_bf16 AMX_BF16"

cpu_has() { grep -m 1 -E '^(flags|Features)' /proc/cpuinfo | grep -qw "$1"; }

# The CPU backend for this machine by explicit flags: GGML_NATIVE can't be combined with loadable backends.
local_cpu_flags() {
	local name switch arch=armv8-a
	case $(uname -m) in
	x86_64)
		while read -r name switch; do
			if cpu_has "$name"; then
				flags+=("-DGGML_$switch=ON")
			else
				flags+=("-DGGML_$switch=OFF")
			fi
		done <<<"$x86_features"
		;;
	aarch64)
		if cpu_has asimddp; then arch=armv8.2-a+dotprod; fi
		if cpu_has asimdhp; then arch+=+fp16; fi
		if cpu_has i8mm; then arch+=+i8mm; fi
		if cpu_has sve; then arch+=+sve; fi
		flags+=("-DGGML_CPU_ARM_ARCH=$arch")
		;;
	esac
}

# Sets flags, targets, server_flags, cuda, kernel_flags and kernel_targets from the environment and this machine.
choose_flags() {
	flags=(
		-DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DLLAMA_BUILD_IS_DEV=OFF
		-DGGML_BACKEND_DL=ON -DGGML_NATIVE=OFF -DGGML_CCACHE=OFF
		-DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_COMMON=ON
		-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF
		-DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF
		-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON "-DCMAKE_INSTALL_RPATH=\$ORIGIN;\$ORIGIN/../lib"
	)
	choose_cuda
	targets=(llama llama-common)
	server_flags=(-DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF)
	if [ "${VARIANTS:-local}" = all ]; then
		flags+=(-DGGML_CPU_ALL_VARIANTS=ON)
	else
		local_cpu_flags
		targets+=(ggml-cpu)
	fi
	if [ "${SERVER:-0}" = 1 ]; then
		targets+=(llama-server)
		server_flags=(-DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_SERVER=ON)
	fi
}

# CUDA's backend is compiled by itself: it depends on none of the flags that follow, and takes ten times as long.
choose_cuda() {
	kernel_flags=() kernel_targets=(ggml-cuda)
	cuda=${CUDA:-}
	if [ -z "$cuda" ]; then
		cuda=0
		if command -v nvcc >/dev/null; then cuda=1; fi
	fi
	[ "$cuda" = 1 ] || return 0
	command -v nvcc >/dev/null || {
		printf 'llama.cpp: CUDA=1, but there is no nvcc on the PATH\n' >&2
		exit 1
	}
	local archs=${CUDA_ARCHS:-}
	if [ -z "$archs" ] && command -v nvidia-smi >/dev/null; then
		archs=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d '. ' | sort -u | paste -sd ';' || true)
	fi
	kernel_flags=("${flags[@]}" -DGGML_CUDA=ON -DGGML_CUDA_NCCL=OFF)
	if [ -n "$archs" ]; then kernel_flags+=("-DCMAKE_CUDA_ARCHITECTURES=$archs"); fi
}
