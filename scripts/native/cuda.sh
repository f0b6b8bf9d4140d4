# What a build of llama.cpp with CUDA needs beyond flags.sh, read by build-llama.sh and cuda-toolkit.sh: where nvcc is,
# for which cards it compiles, and which of the toolkit's libraries go beside the result. Uses say and die of the script
# that reads this file.
# shellcheck shell=bash
# shellcheck disable=SC2154

default_toolkit=/usr/local/cuda
# For cards unknown: Turing, Ampere, Ada, Hopper and Blackwell; within a generation later cards run the earlier's code.
shipped_architectures="75 80 86 89 90 100 120"
# llama.cpp compiles 12x as 12xa, which no other card runs, so the intermediate code for later cards is of one before.
least_bound_to_its_card=120
# Measured with one, the CPU's part included; an upper bound for more.
cpu_minutes_an_architecture=38

# Prints the directory of the toolkit that this machine has: CUDA_HOME, or that of nvcc on the PATH, or /usr/local/cuda.
# Status 1: there is none, or CUDA_HOME names something else.
installed_toolkit() {
	local candidate nvcc candidates=("$default_toolkit")
	if [ -n "${CUDA_HOME:-}" ]; then
		candidates=("$CUDA_HOME")
	elif nvcc=$(type -P nvcc); then
		# A link, as in /usr/bin, leads to where the libraries are; unless it leads to a wrapper.
		candidates=("$(dirname "$(dirname "$(realpath "$nvcc")")")" "$(dirname "$(dirname "$nvcc")")" "$default_toolkit")
	fi
	for candidate in "${candidates[@]}"; do
		if [ -x "$candidate/bin/nvcc" ]; then
			printf '%s\n' "$candidate"
			return
		fi
	done
	return 1
}

# Settles what choose_flags goes by: CUDA, nvcc on the PATH and CUDA_ARCHS; sets toolkit. The argument is that of
# cuda-toolkit.sh, which fetches a toolkit only where CUDA=1 asks for one.
prepare_cuda() {
	if [ -z "${CUDA:-}" ]; then
		CUDA=0
		! installed_toolkit >/dev/null || CUDA=1
	fi
	[ "$CUDA" = 1 ] || return 0
	toolkit=$("$here/cuda-toolkit.sh" "$@")
	[ -x "$toolkit/bin/nvcc" ] || die "what CUDA=1 builds depends on the toolkit, which isn't there yet; run scripts/cuda-toolkit.sh"
	[ "$(type -P nvcc)" -ef "$toolkit/bin/nvcc" ] || PATH=$toolkit/bin:$PATH
	export CUDACXX=$toolkit/bin/nvcc
	[ -z "${CXX:-}" ] || export CUDAHOSTCXX=${CUDAHOSTCXX:-$CXX}
	[ -n "${CUDA_ARCHS:-}" ] || CUDA_ARCHS=$(choose_architectures)
}

# What the result depends on beyond the flags, one line each.
cuda_ingredients() {
	"$CUDACXX" --version | tail -n 2
	declare -f collect_cuda
	[ -z "${CUDAHOSTCXX:-}" ] || "$CUDAHOSTCXX" --version | head -n 1
}

# Prints what CMAKE_CUDA_ARCHITECTURES gets: this machine's cards, unless the result is for any machine.
choose_architectures() {
	local cards='' known
	known=$("$CUDACXX" --list-gpu-arch | sed -n 's/^compute_\([0-9]*\)$/\1/p') || die "$CUDACXX --list-gpu-arch failed"
	[ "${VARIANTS:-local}" = all ] || cards=$(cards_of_machine)
	if [ -z "$cards" ]; then
		architectures_for_any "$known" || die "$CUDACXX compiles for none of $shipped_architectures; set CUDA_ARCHS"
	else
		architectures_of "$cards" "$known" ||
			die "$CUDACXX compiles for none as old as a card here (compute capability without the dot: ${cards//$'\n'/, }); set CUDA_ARCHS, or CUDA_HOME to an earlier toolkit"
	fi
}

# The compute capabilities of the cards here, without the dot. Old drivers answer the question with a complaint.
cards_of_machine() {
	command -v nvidia-smi >/dev/null || return 0
	nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sed -n 's/^ *\([0-9][0-9]*\)\.\([0-9]\) *$/\1\2/p' | sort -nu || true
}

# newest_before BOUND KNOWN: the largest of KNOWN below BOUND that is compiled so that later cards can run it.
newest_before() {
	local arch newest='' bound=$1
	[ "$bound" -lt "$least_bound_to_its_card" ] || bound=$least_bound_to_its_card
	for arch in $2; do
		if [ "$arch" -lt "$bound" ] && [ "$arch" -gt "${newest:-0}" ]; then newest=$arch; fi
	done
	[ -n "$newest" ] || return 1
	printf '%s\n' "$newest"
}

knows() { [[ " ${1//$'\n'/ } " == *" $2 "* ]]; }

# architectures_of CARDS KNOWN: code for each card; one that nvcc doesn't know yet gets intermediate code, which its
# driver compiles. Status 1: one is older than all that nvcc knows.
architectures_of() {
	local card before list=()
	for card in $1; do
		if knows "$2" "$card"; then
			list+=("$card-real")
		else
			before=$(newest_before "$card" "$2") || return 1
			list+=("$before-virtual")
		fi
	done
	printf '%s\n' "${list[@]}" | sort -Vu | paste -sd ';'
}

# architectures_for_any KNOWN: code for the usual cards, and intermediate code for those to come. Status 1: none of them
# is known.
architectures_for_any() {
	local arch shipped='' list=()
	for arch in $shipped_architectures; do
		if knows "$1" "$arch"; then
			list+=("$arch-real")
			shipped+=" $arch"
		fi
	done
	arch=$(newest_before "$least_bound_to_its_card" "$shipped") || return 1
	list+=("$arch-virtual")
	printf '%s\n' "${list[@]}" | paste -sd ';'
}

# nvcc refuses host compilers that are too new for it, which is told here in a line and not by CMake in a page. $1 is a
# directory to write to.
check_host_compiler() {
	local dir=$1 host=()
	[ -z "${CUDAHOSTCXX:-}" ] || host=(-ccbin "$CUDAHOSTCXX")
	printf '__global__ void nothing() {}\n' >"$dir/nothing.cu"
	"$CUDACXX" "${host[@]}" -c -o "$dir/nothing.o" "$dir/nothing.cu" >"$dir/nothing.log" 2>&1 || {
		grep -m 3 -i 'error' "$dir/nothing.log" >&2 || tail -n 10 "$dir/nothing.log" >&2
		die "$CUDACXX doesn't work with ${CUDAHOSTCXX:-the C++ compiler of the PATH}; CXX or CUDAHOSTCXX name another"
	}
}

say_what_cuda_takes() {
	local count
	count=$(wc -w <<<"${CUDA_ARCHS//;/ }")
	say "CUDA from $toolkit for $CUDA_ARCHS: up to $((count * cpu_minutes_an_architecture)) CPU minutes"
	say_if_without_licence "$toolkit/EULA.txt"
}

# NVIDIA's libraries may be passed on with its licence; a toolkit of a distribution may not have the text. Not in
# collect_cuda, a change of which compiles all kernels again.
say_if_without_licence() {
	[ -f "$1" ] || say "there is no $1, so the text of NVIDIA's licence won't lie beside its libraries: add it as LICENSE.nvidia before you pass them on"
}

# Puts what libggml-cuda.so needs of the toolkit beside it in $1/lib, as links where the file system lets, with the
# licence. The driver's library is never among it: it belongs to the machine.
collect_cuda() {
	local to=$1 name path
	while read -r name path; do
		[ -f "$path" ] || die "libggml-cuda.so needs $name, which isn't in $toolkit"
		cp -lL "$path" "$to/lib/$name" 2>/dev/null || cp -L "$path" "$to/lib/$name"
	done < <(LD_LIBRARY_PATH=$toolkit/lib64:$toolkit/lib ldd "$to/lib/libggml-cuda.so" | awk '$1 ~ /^lib(cudart|cublas|cublasLt)\.so/ { print $1, $3 }')
	[ ! -f "$toolkit/EULA.txt" ] || cp "$toolkit/EULA.txt" "$to/LICENSE.nvidia"
}
