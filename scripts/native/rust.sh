# Finds a Rust toolchain that is new enough, shared by bootstrap.sh and build-llguidance.sh.
# shellcheck shell=bash

rust_least=1.87 # the library's own minimum

# version_at_least HAVE LEAST
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# Sets cargo and rustc to the first pair on the PATH that is new enough, rustup's shims without a toolchain passed over,
# or to the newest of a distribution's versioned packages. Status 1: there is none.
find_rust() {
	local candidate suffix version
	while IFS= read -r candidate; do
		suffix=${candidate##*/cargo}
		rustc=${candidate%/*}/rustc$suffix
		[ -x "$rustc" ] || continue
		version=$("$rustc" --version 2>/dev/null | cut -d ' ' -f 2) || continue
		if [ -n "$version" ] && version_at_least "$version" "$rust_least"; then
			cargo=$candidate
			return 0
		fi
	done < <(type -ap cargo; compgen -c cargo-1. | sort -Vru | xargs -r which 2>/dev/null)
	return 1
}

# The Debian or Ubuntu packages that bring one. Before apt-get update they may not be known yet.
rust_packages() {
	if ! command -v apt-cache >/dev/null || [ -z "$(apt-cache pkgnames cargo 2>/dev/null | head -n 1)" ]; then
		printf 'cargo\nrustc\n'
		return
	fi
	if apt-cache show cargo-web >/dev/null 2>&1; then
		printf 'cargo-web\nrustc-web\n'
		return
	fi
	local version
	version=$(apt-cache pkgnames cargo-1. 2>/dev/null | sed -n 's/^cargo-\(1\.[0-9]*\)$/\1/p' | sort -V | tail -n 1)
	if [ -n "$version" ]; then
		printf 'cargo-%s\nrustc-%s\n' "$version" "$version"
	else
		printf 'cargo\nrustc\n'
	fi
}
