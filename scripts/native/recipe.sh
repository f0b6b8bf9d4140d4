# How a source tree of llama.cpp becomes the result, read by build-llama.sh; a change here means another build. Uses
# say, die, fetch_tarball, show_progress, patches and aside of that script.
# shellcheck shell=bash
# shellcheck disable=SC2154

# Leaves a patched source tree in $1.
prepare_source() {
	local to=$1 tarball patch
	if [ -n "${LLAMA_CPP_DIR:-}" ]; then
		say "copying $LLAMA_CPP_DIR ..."
		cp -a "$LLAMA_CPP_DIR" "$to"
	else
		tarball=$(fetch_tarball)
		say "unpacking $llama_release ..."
		tar -xzf "$tarball" -C "$aside" "$bundle_path"
		git -c advice.detachedHead=false clone --quiet "$aside/$bundle_path" "$to"
		rm -rf "$aside/package"
	fi
	for patch in "${patches[@]}"; do
		say "applying $(basename "$patch")"
		git -C "$to" apply "$patch"
	done
}

# compile SOURCE BUILD FLAG… -- TARGET…: compiles the targets into the directory BUILD with these flags for cmake.
compile() {
	local src=$1 build=$2 flags=()
	shift 2
	while [ "$1" != -- ]; do
		flags+=("$1")
		shift
	done
	shift
	say "configuring ..."
	cmake -S "$src" -B "$build" -G Ninja "${flags[@]}" >"$aside/configure.log" 2>&1 || {
		tail -n 30 "$aside/configure.log" >&2
		die "cmake failed; $aside/configure.log has all of it"
	}
	say "compiling $* with ${JOBS:-$(nproc)} jobs ..."
	NINJA_STATUS='[%f/%t] ' ninja -C "$build" -j "${JOBS:-$(nproc)}" "$@" 2>&1 | tee "$aside/compile.log" | show_progress || {
		grep -A 15 -m 3 'error:\|FAILED' "$aside/compile.log" >&2 || tail -n 30 "$aside/compile.log" >&2
		die "the compiler failed; $aside/compile.log has all of it"
	}
}

# Copies what the engine's build and run need from source $1 and build directory $2 into $3.
collect() {
	local src=$1 build=$2 to=$3 gomp
	mkdir -p "$to/lib" "$to/include/common" "$to/include/vendor" "$to/include/src"
	cp "$src"/include/*.h "$src"/ggml/include/*.h "$to/include/"
	(cd "$src/common" && find . -name '*.h' -o -name '*.hpp' | cpio_copy "$to/include/common")
	(cd "$src/vendor" && find nlohmann -name '*.hpp' | cpio_copy "$to/include/vendor")
	cp "$src"/src/*.h "$to/include/src/"
	cp "$src/LICENSE" "$to/LICENSE"
	find "$build/bin" -maxdepth 1 -name '*.so*' -exec cp -a {} "$to/lib/" \;
	gomp=$("${CC:-cc}" -print-file-name=libgomp.so.1)
	if [ -f "$gomp" ]; then
		cp -L "$gomp" "$to/lib/libgomp.so.1"
	fi
	collect_server "$build" "$to"
}

collect_server() {
	local build=$1 to=$2
	[ -x "$build/bin/llama-server" ] || return 0
	mkdir -p "$to/bin"
	find "$build/bin" -maxdepth 1 -name '*.so*' -exec cp -an {} "$to/lib/" \;
	cp "$build/bin/llama-server" "$to/bin/llama-server.new"
	mv "$to/bin/llama-server.new" "$to/bin/llama-server"
}

cpio_copy() { tar -c -T - | tar -x -C "$1"; }
