#!/usr/bin/env bash
# Runs deploy/cluster: tests of the manifests on a real Kubernetes of one node, on a machine without Docker, a cluster
# or a registry. Needs root on Debian 12. The first run builds Kubernetes; components and images are kept in the cache
# (TANDEM_CACHE, otherwise tandem in the user's cache directory). The node lives in namespaces of its own and ends with
# this script.
#
#   scripts/test-cluster.sh              build and test
#   scripts/test-cluster.sh -run Drain   the same with flags of go test: -run, -count, -timeout
#   scripts/test-cluster.sh --shell      a shell on the node, with kubectl and ctr, instead of the tests
#   scripts/test-cluster.sh --build      only build
#
# IMAGES=kept takes the images that the cache has as they are: for work on the tests. VARIANTS=local builds the engine's
# image for this machine's CPU only, with the llama.cpp that `make build` uses.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=native/source.sh
. scripts/native/source.sh
# shellcheck source=pod/images.sh
. scripts/pod/images.sh
# shellcheck source=cluster/components.sh
. scripts/cluster/components.sh

step() { echo "test-cluster: $(date -u +%T) $*" >&2; }
die() {
	step "$*"
	exit 1
}

version=${VERSION:-1.0.0}
revision=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
proxy_image=localhost/llm-inference:$version
engine_image=localhost/llm-inference-engine:$version-cpu

install_missing
command -v ip >/dev/null || die "missing: iproute2 (name of a Debian package)"
mkdir -p "$(cache_root)/pod" "$(cache_root)/cluster"
work=$(realpath "$(cache_root)/pod") cluster=$(realpath "$(cache_root)/cluster")
exec 9>"$work/lock" # the images and their storage are those of test-pod.sh
flock -n 9 || { step "another run is under way; waiting for it"; flock 9; }
write_configuration
build_components
if [ "${IMAGES:-}" != kept ]; then
	build_base
	build_builder
	build_images
fi
build_pause "$cluster/pause.tar"
build_models "$cluster/models.tar"
save_image "$proxy_image" "docker.io/library/${proxy_image#localhost/}" "$cluster/proxy.tar"
save_image "$engine_image" "docker.io/library/${engine_image#localhost/}" "$cluster/engine.tar"
CGO_ENABLED=0 go build -o "$cluster/node" ./deploy/cluster/node
CGO_ENABLED=0 go test -c -o "$cluster/cluster.test" ./deploy/cluster
[ "${1:-}" != --build ] || exit 0

inside=("$cluster/cluster.test" -test.v -test.timeout 60m)
if [ "${1:-}" = --shell ]; then
	inside=(bash)
else
	for flag; do
		case $flag in -*) inside+=("-test.${flag#-}") ;; *) inside+=("$flag") ;; esac
	done
fi
images=(-image "$cluster/pause.tar" -image "$cluster/proxy.tar" -image "$cluster/engine.tar")
if [ -s "$cluster/models.tar" ]; then
	images+=(-image "$cluster/models.tar")
	export CLUSTER_MODEL=smollm2
fi
cd deploy/cluster # where go test runs tests
CLUSTER=$cluster exec "$cluster/node" -components "$components" -state "$cluster/run" "${images[@]}" "${inside[@]}"
