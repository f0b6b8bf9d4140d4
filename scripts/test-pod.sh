#!/usr/bin/env bash
# Builds the images and runs scripts/pod: a pod of two containers, made from deploy/kubernetes/overlays/two-containers,
# on a machine without Docker, a cluster or a registry. The images' base is made with debootstrap. Needs root on Debian
# 12; what is missing of podman, buildah and what they use is installed. The first run takes a quarter of an hour on two
# cores, most of it for llama.cpp with all CPU variants; base, builder, llama.cpp and the layers of the images are kept
# in the cache (TANDEM_CACHE, otherwise tandem in the user's cache directory).
#
#   scripts/test-pod.sh             build and test
#   scripts/test-pod.sh --images    only build, and print the sizes
#   scripts/test-pod.sh --cuda      the engine's image for CUDA, on the same base, where no card is; CUDA_ARCHS=90-real
#                                   is half an hour of compiling, the default hours
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=native/source.sh
. scripts/native/source.sh
# shellcheck source=pod/images.sh
. scripts/pod/images.sh

step() { echo "test-pod: $*" >&2; }
die() {
	step "$*"
	exit 1
}

version=${VERSION:-1.0.0}
revision=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
proxy_image=localhost/llm-inference:$version
engine_image=localhost/llm-inference-engine:$version-cpu
cuda_image=localhost/llm-inference-engine:$version-cuda
test_gpu_image=localhost/tandem-engine-testgpu
redis_image=localhost/tandem-redis
network=tandem

install_missing
mkdir -p "$(cache_root)/pod"
work=$(realpath "$(cache_root)/pod")
exec 9>"$work/lock"
flock -n 9 || { step "another run is under way; waiting for it"; flock 9; }
write_configuration
clear_leftovers
build_base
build_builder
build_images
check_sizes
[ "${1:-}" != --images ] || exit 0
run=.
if [ "${1:-}" = --cuda ]; then
	build_cuda_image
	export POD_CUDA_IMAGE=$cuda_image
	run='CUDA|WithoutItsGPU'
else
	build_test_gpu_image
	build_redis
fi
podman network exists "$network" || podman network create "$network" >/dev/null
(cd deploy/test && GOWORK=off go tool kustomize build ../kubernetes/overlays/two-containers) >"$work/manifest.yaml"
code=0
POD_MANIFEST=$work/manifest.yaml POD_NETWORK=$network POD_REDIS_IMAGE=$redis_image \
	POD_ENGINE_IMAGE=$engine_image POD_TEST_GPU_IMAGE=$test_gpu_image go test -count=1 -timeout 9m -v -run "$run" ./scripts/pod || code=$?
clear_leftovers
[ "$code" = 0 ] || exit "$code"
step "all good"
