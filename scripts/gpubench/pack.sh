#!/usr/bin/env bash
# Packs what bench-gpu needs on a machine with an NVIDIA card that has neither network nor Go: the programs,
# llama-server of the same library, and a generator of models, at most 60 MB. What must be there is NVIDIA's driver and
# cuBLAS, which alone is ten times as large; bench-gpu looks for it where toolkits and Python's packages have it.
#
#   scripts/gpubench/pack.sh DIR    makes DIR and DIR.tar; results in DIR stay
#
# The kernels come from a build with CUDA, all else from one for any x86-64 processor, as images have it; each is made
# once and takes its time.
#
# Environment: CUDA_ARCHS (default: this machine's cards, or 90-real; each takes 40 MB), VARIANTS=local (for processors
# like this one, which takes less time), SERVER=0 (without llama-server), KERNELS (the result of a build with CUDA of
# the same source, made elsewhere), CUDA=0 (without kernels, to try the packing), and what else build-llama.sh reads.
set -euo pipefail
shopt -s inherit_errexit

[ $# = 1 ] || { sed -n '6p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
to=$(realpath -m "$1")
most_bytes=60000000

say() { printf 'pack-gpu: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}

# shellcheck source=pack-steps.sh
. "$here/pack-steps.sh"

cd "$here/../.."
scripts/bootstrap.sh
if [ -z "${CUDA_ARCHS:-}" ] && ! command -v nvidia-smi >/dev/null; then
	say "no card here: kernels for Hopper; CUDA_ARCHS=80-real, for example, makes those for others"
	export CUDA_ARCHS=90-real
fi
kernels=${KERNELS:-}
if [ -z "$kernels" ] && [ "${CUDA:-1}" != 0 ]; then
	kernels=$(CUDA=1 scripts/build-llama.sh --kernels)
fi
[ -z "$kernels" ] || [ -f "$kernels/lib/libggml-cuda.so" ] || die "$kernels has no lib/libggml-cuda.so"
export CUDA=0 VARIANTS=${VARIANTS:-all} SERVER=${SERVER:-1}
exports=$(scripts/build-llama.sh --env)
eval "$exports"

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
version=$(git describe --always --dirty 2>/dev/null || echo unknown)
programs=$stage/programs

build_programs() {
	local ldflags="-s -w -X main.version=${VERSION:-1.0.0} -X main.revision=$version"
	mkdir -p "$programs" "$stage/pack"
	go build -buildvcs=false -tags llama,grpcnotrace -ldflags "$ldflags" -o "$programs/tandem-engine" ./engine
	CGO_ENABLED=0 go build -buildvcs=false -tags grpcnotrace,validator_novalidatefn,noui -ldflags "$ldflags" -o "$programs/tandem-proxy" ./proxy
	CGO_ENABLED=0 go build -buildvcs=false -ldflags "-s -w -X main.version=$version" -o "$programs/bench-gpu" ./scripts/gpubench
	CGO_ENABLED=0 go build -buildvcs=false -ldflags "-s -w" -o "$stage/pack/bench-gpu" ./scripts/gpubench/launcher
}

# llama-server looks for backends in its own directory. Of the CPU's variants two do: the oldest, and the one that
# nearly all of today's machines can use.
gather() {
	scripts/gather-libraries.sh "$BACKEND_DIR" "$programs/tandem-engine" "$stage/system"
	find "$programs/lib" -name 'libggml-cpu-*.so' ! -name '*-x64.so' ! -name '*-haswell.so' -delete
	if [ "$SERVER" = 1 ]; then
		strip -o "$programs/lib/llama-server" "$LLAMA/bin/llama-server"
	fi
	if [ -n "$kernels" ]; then
		gather_kernels "$kernels" "$programs/lib"
	fi
	cp scripts/e2e/testdata/capitals.tsv "$programs/"
	cp "$LLAMA/LICENSE" "$programs/lib/LICENSE.llama.cpp"
	BACKEND_DIR= "$programs/tandem-engine" licenses >"$programs/LICENSES" # with that of what lies in its lib
}

say "building the programs ..."
build_programs
gather
say "compressing $(du -sm "$programs" | cut -f 1) MB ..."
tar -c -C "$programs" --sort=name --owner=0 --group=0 . | xz -9e >"$stage/pack/programs.tar.xz"
cat >"$stage/pack/README.txt" <<'END'
Run ./bench-gpu here, on a machine with an NVIDIA card, its driver and cuBLAS. It takes at most eight minutes and about
10 GB of disk, and writes results/results.md and results.json after each of its parts. ./bench-gpu -h tells its flags;
docs/gpu.md of Tandem says what the parts are.
END

bytes=$(du -sb "$stage/pack" | cut -f 1)
[ "$bytes" -le "$most_bytes" ] || die "the pack has $((bytes / 1000000)) MB, 60 are allowed: fewer CUDA_ARCHS, VARIANTS=local or SERVER=0"
place_pack "$stage/pack" "$to"
say "$to and $to.tar: $((bytes / 1000000)) MB"
