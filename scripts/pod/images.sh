# How the images are built without a registry, read by test-pod.sh. Everything of podman's and buildah's is below $work:
# storage, networks, volumes, configuration. Uses cache_root, step, die, work, version, revision and the names of the
# images of that script.
# shellcheck shell=bash
# shellcheck disable=SC2154

base=localhost/tandem-base:bookworm
search=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# Targets for the sizes, in megabytes, uncompressed.
proxy_limit=25 engine_limit=150

# Command, Debian package.
install_missing() {
	local pair missing=() line
	for pair in podman:podman buildah:buildah runc:runc /usr/lib/podman/netavark:netavark /usr/lib/podman/aardvark-dns:aardvark-dns \
		iptables:iptables catatonit:catatonit newuidmap:uidmap debootstrap:debootstrap curl:curl; do
		command -v "${pair%:*}" >/dev/null || missing+=("${pair#*:}")
	done
	line="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
	if [ "$(id -u)" -ne 0 ]; then
		[ "${#missing[@]}" -eq 0 ] || step "missing: $line"
		die "must run as root: it makes a base image, cgroups and networks"
	fi
	[ "${#missing[@]}" -ne 0 ] || return 0
	command -v apt-get >/dev/null || die "missing: ${missing[*]} (names of Debian packages)"
	step "installing ${missing[*]}"
	DEBIAN_FRONTEND=noninteractive bash -c "${line//apt-get/apt-get -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0}" >&2
}

# A configuration of the test's own. Without systemd cgroups are made by hand, and limits as podman would set them by
# default may not be allowed. A file system on which overlay doesn't work gets whole copies.
write_configuration() {
	export CONTAINERS_CONF=$work/containers.conf CONTAINERS_STORAGE_CONF=$work/storage.conf
	mkdir -p "$work/networks" "$work/go-build"
	cat >"$CONTAINERS_CONF" <<-END
		[containers]
		default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
		[network]
		network_backend = "netavark"
		network_config_dir = "$work/networks"
		[engine]
		runtime = "runc"
		cgroup_manager = "cgroupfs"
		events_logger = "none"
		lock_type = "file"
		tmp_dir = "$work/run/libpod"
	END
	local driver
	for driver in overlay vfs; do
		printf '[storage]\ndriver = "%s"\ngraphroot = "%s"\nrunroot = "%s"\n' "$driver" "$work/storage" "$work/run/storage" >"$CONTAINERS_STORAGE_CONF"
		if podman info >/dev/null 2>&1; then return; fi
	done
	podman info >/dev/null || die "podman doesn't work here"
}

# What a run that was killed left. Images and layers stay.
clear_leftovers() {
	podman pod rm -f -a -t 0 >/dev/null
	podman rm -f -a -t 0 >/dev/null
	podman volume rm -f -a >/dev/null
}

# A minimal Debian 12, with the sources of packages that this machine has for it.
build_base() {
	! podman image exists "$base" || return 0
	local root mirror security
	root=$(mktemp -d "$work/base.XXXXXX")
	mirror=$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | head -n 1 || true)
	step "making a base image with debootstrap"
	# shellcheck disable=SC2086 # no mirror: debootstrap's own
	debootstrap --variant=minbase --include=ca-certificates bookworm "$root" ${mirror:-} >"$work/debootstrap.log" 2>&1 ||
		{ tail "$work/debootstrap.log" >&2; die "debootstrap failed; $work/debootstrap.log has all of it"; }
	# Rust that is new enough is in Debian 12's security updates.
	security=$(grep -rhoE 'https?://[^ ]+/debian-security/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | head -n 1 || true)
	security=${security:-${mirror:+${mirror%%/debian*}/debian-security}}
	[ -z "$security" ] || printf 'deb %s bookworm-security main\n' "${security% }" >>"$root/etc/apt/sources.list"
	rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
	tar -C "$root" -c . | podman import --change "ENV PATH=${search#*:}" - "$base" >/dev/null 2>&1
	rm -rf "$root"
}

# The base with this machine's Go, its Node where it has one that is new enough for the page, and its certificate
# authorities.
build_builder() {
	local name container npm=
	name=$(go env GOVERSION)
	page=none
	if command -v npm >/dev/null && [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ]; then
		name+=-node$(node -p process.versions.node)
		npm=$(dirname "$(dirname "$(realpath "$(command -v npm)")")")
		page=live
	else
		step "no Node 20 or later here: the proxy is built without the live page"
	fi
	builder=localhost/tandem-builder:$name
	! podman image exists "$builder" || return 0
	step "making the builder image: $name"
	container=$(buildah from --pull-never "$base")
	buildah copy -q "$container" "$(go env GOROOT)" /usr/local/go >/dev/null
	buildah copy -q "$container" /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt >/dev/null
	if [ -n "$npm" ]; then
		buildah copy -q "$container" "$(node -p process.execPath)" /usr/local/bin/node >/dev/null
		buildah copy -q "$container" "$npm" /usr/local/lib/node_modules/npm >/dev/null
		buildah run --isolation chroot "$container" sh -c 'for p in npm npx; do ln -s ../lib/node_modules/npm/bin/$p-cli.js /usr/local/bin/$p; done; npm --version' >/dev/null
	fi
	buildah config --env PATH="$search" --env GOTOOLCHAIN=local --env GOPROXY=file:///var/cache/go-proxy --env GOSUMDB=off \
		--env npm_config_cafile=/etc/ssl/certs/ca-certificates.crt --env npm_config_prefer_offline=true "$container"
	buildah commit -q "$container" "$builder" >/dev/null
	buildah rm "$container" >/dev/null
}

# Modules come from this machine's module cache, packages of Node from npm's, llama.cpp from its cache, compiled with
# all variants once; with VARIANTS=local it is the one that `make build` has made for this machine.
build_images() {
	go mod download
	local npm_cache=$work/npm
	if [ "$page" = live ]; then npm_cache=$(npm config get cache); fi
	mkdir -p "$npm_cache"
	# A build that was killed leaves its containers, mounted; the lock says that none of them works.
	buildah rm -a >/dev/null
	# Layers of earlier builds stay for the next one; here they end.
	if [ "$(du -smx "$work/storage" | cut -f 1)" -gt 12000 ]; then podman image prune -f >/dev/null; fi
	gate=(buildah bud --format docker --layers --network host --isolation chroot --pull-never
		-v "$(go env GOMODCACHE)/cache/download:/var/cache/go-proxy:ro" -v "$work/go-build:/root/.cache/go-build"
		-v "$(realpath "$(cache_root)"):/var/cache/tandem" -v "$npm_cache:/root/.npm"
		--build-arg "BUILDER_IMAGE=$builder" --build-arg "VERSION=$version" --build-arg "REVISION=$revision")
	step "building $proxy_image"
	"${gate[@]}" --build-arg "NODE_IMAGE=$builder" --build-arg RUNTIME_IMAGE=scratch --build-arg "PAGE=$page" \
		-f Dockerfile.proxy -t "$proxy_image" . >"$work/proxy.log" 2>&1 || { tail -n 30 "$work/proxy.log" >&2; die "the proxy's image can't be built"; }
	build_engine "$engine_image" engine --build-arg GPU=cpu --build-arg "VARIANTS=${VARIANTS:-all}"
}

# build_engine IMAGE LOG ARGUMENT…
build_engine() {
	local image=$1 log=$work/$2.log
	shift 2
	step "building $image"
	"${gate[@]}" "$@" -f Dockerfile.engine -t "$image" . > >(tee "$log" | grep --line-buffered '^llama.cpp:\|^llguidance:\|^bootstrap:\|^cuda:' >&2) 2>&1 ||
		{ tail -n 30 "$log" >&2; die "$image can't be built"; }
}

# The engine for CUDA, with the toolkit out of wheels and on the base that is here, since NVIDIA's images aren't.
build_cuda_image() {
	local bytes
	build_engine "$cuda_image" cuda --build-arg GPU=cuda --build-arg "GO_IMAGE=$builder" --build-arg "RUNTIME_IMAGE=$base" \
		--build-arg "VARIANTS=${VARIANTS:-all}" --build-arg "CUDA_ARCHS=${CUDA_ARCHS:-}"
	bytes=$(podman image inspect -f '{{.Size}}' "$cuda_image")
	step "$cuda_image: $((bytes / 1000000)) MB uncompressed, with the $(($(podman image inspect -f '{{.Size}}' "$base") / 1000000)) MB of its base"
}

# The engine's image with the test GPU (scripts/testgpu) beside its backends.
build_test_gpu_image() {
	step "building $test_gpu_image"
	"${gate[@]}" --build-arg "ENGINE_IMAGE=$engine_image" --build-arg "VARIANTS=${VARIANTS:-all}" \
		-f scripts/pod/Dockerfile.testgpu -t "$test_gpu_image" . >"$work/testgpu.log" 2>&1 ||
		{ tail -n 30 "$work/testgpu.log" >&2; die "$test_gpu_image can't be built"; }
}

# Prints what the images take, and fails above the targets.
check_sizes() {
	local image limit bytes
	for image in "$proxy_image $proxy_limit" "$engine_image $engine_limit"; do
		limit=${image#* } image=${image% *}
		bytes=$(podman image inspect -f '{{.Size}}' "$image")
		step "$image: $((bytes / 100000 / 10)).$((bytes / 100000 % 10)) MB uncompressed, at most $limit"
		[ "$bytes" -le $((limit * 1000000)) ] || die "$image is too large"
	done
}

# A Redis for the rate limits that pods share.
build_redis() {
	local dir
	dir=$(mktemp -d "$work/redis.XXXXXX")
	cat >"$dir/Dockerfile" <<-END
		FROM $base
		RUN apt-get update && apt-get install -y --no-install-recommends redis-server
		USER redis
		ENTRYPOINT ["redis-server", "--save", "", "--protected-mode", "no"]
	END
	buildah bud --format docker --layers --network host --isolation chroot --pull-never -t "$redis_image" "$dir" >"$work/redis.log" 2>&1 ||
		{ tail -n 30 "$work/redis.log" >&2; die "the image of Redis can't be built"; }
	rm -rf "$dir"
}
