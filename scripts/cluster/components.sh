# The programs of a Kubernetes node, read by test-cluster.sh: Kubernetes and kube-router from Go's module proxy, at the
# versions of deploy/cluster/*/go.mod; etcd, containerd and its plugins from Debian, unpacked and not installed. All of
# it is below $cluster/VERSION, made once. Uses step, die and cluster of that script.
# shellcheck shell=bash
# shellcheck disable=SC2154

debian_packages=(containerd etcd-server ipset libipset13 libmnl0 containernetworking-plugins busybox-static)

# Prints the folder of the components, which has a new name when one of them has another version.
components_folder() {
	local kubernetes router
	kubernetes=$(module_version kubernetes k8s.io/kubernetes)
	router=$(module_version kube-router github.com/cloudnativelabs/kube-router/v2)
	printf '%s/kubernetes-%s-kube-router-%s-%s\n' "$cluster" "$kubernetes" "$router" "$(sources_key)"
}
module_version() { (cd "deploy/cluster/$1" && GOWORK=off GOFLAGS=-mod=mod go list -m -f '{{.Version}}' "$2"); }
sources_key() { { cat deploy/cluster/kube*/go.* deploy/cluster/kubernetes/*.go && echo "${debian_packages[@]}"; } | sha256sum | cut -c 1-12; }

build_components() {
	local began=$SECONDS name
	components=$(components_folder)
	[ ! -e "$components/complete" ] || return 0
	mkdir -p "$components/bin"
	fetch_debian "$components/debian"
	step "building kube-router"
	build_program kube-router github.com/cloudnativelabs/kube-router/v2/cmd/kube-router "$components/bin/kube-router" ""
	step "building Kubernetes, one program of about 100 MB: the longest step"
	build_program kubernetes . "$components/bin/kubernetes" "$(version_flags)"
	for name in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
		ln -sf kubernetes "$components/bin/$name"
	done
	touch "$components/complete"
	step "made the components in $((SECONDS - began)) s; $(du -sm "$components" | cut -f 1) MB"
}

build_program() { # folder package output flags
	(cd "deploy/cluster/$1" && GOWORK=off CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w $4" -o "$3" "$2")
}

# Clients and kubelet compare versions, which a plain build doesn't know.
version_flags() {
	local version p=k8s.io/component-base/version
	version=$(module_version kubernetes k8s.io/kubernetes)
	IFS=. read -r _ minor _ <<<"$version"
	printf -- '-X %s.gitVersion=%s -X %s.gitMajor=1 -X %s.gitMinor=%s -X %s.gitTreeState=clean' "$p" "$version" "$p" "$p" "$minor" "$p"
}

fetch_debian() { # folder
	local archives package
	archives=$(mktemp -d)
	step "fetching ${debian_packages[*]}"
	download() { (cd "$archives" && apt-get -q -o APT::Sandbox::User=root download "${debian_packages[@]}" >&2); }
	download || { apt-get -q -o DPkg::Lock::Timeout=300 update >&2 && download; } || die "apt-get can't download ${debian_packages[*]}"
	for package in "$archives"/*.deb; do dpkg -x "$package" "$1"; done
	rm -rf "$archives"
}

# The image of the process that holds a pod's namespaces.
build_pause() { # file
	local dir
	[ ! -s "$1" ] || return 0
	dir=$(mktemp -d)
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$dir/pause" ./deploy/cluster/pause
	printf 'FROM scratch\nCOPY pause /pause\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n' >"$dir/Dockerfile"
	buildah bud -q --format docker --isolation chroot -t localhost/pause:1 "$dir" >/dev/null
	save_image localhost/pause:1 localhost/pause:1 "$1"
	rm -rf "$dir"
}

# The image that components/models-copy copies from: a model and a cp. Without the model there is none.
build_models() { # file
	local dir model
	[ ! -s "$1" ] || return 0
	model=$(scripts/models/fetch.sh smollm2) || { step "without SmolLM2, components/models-copy is not tried"; return 0; }
	dir=$(mktemp -d)
	mkdir -p "$dir/bin" "$dir/models/smollm2"
	cp "$components/debian/bin/busybox" "$dir/bin/cp"
	cp "$model" "$dir/models/smollm2/model.gguf"
	chmod -R a+rX "$dir/models"
	printf 'FROM scratch\nCOPY bin /bin\nCOPY models /models\n' >"$dir/Dockerfile"
	buildah bud -q --format docker --isolation chroot -t localhost/llm-models:1.0.0 "$dir" >/dev/null
	save_image localhost/llm-models:1.0.0 docker.io/library/llm-models:1.0.0 "$1"
	rm -rf "$dir"
}

# Writes an image of buildah's as docker save would, under the name that the manifests give it.
save_image() { # image name file
	rm -f "$3"
	buildah push -q "$1" "docker-archive:$3:$2"
}
