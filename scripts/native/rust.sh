# Finds a Rust toolchain that is new enough, shared by bootstrap.sh and build-llguidance.sh.
# shellcheck shell=bash

rust_least=1.87 # the library's own minimum

# version_at_least HAVE LEAST
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# Sets cargo and rustc: those on the PATH, or the newest of a distribution's versioned packages. Status 1: none is new enough.
find_rust() {
	local candidate suffix version
	for candidate in cargo $(compgen -c cargo-1. | sort -Vru); do
		command -v "$candidate" >/dev/null || continue
		suffix=${candidate#cargo}
		command -v "rustc$suffix" >/dev/null || continue
		version=$("rustc$suffix" --version 2>/dev/null | cut -d ' ' -f 2) || continue
		if [ -n "$version" ] && version_at_least "$version" "$rust_least"; then
			cargo=$candidate rustc=rustc$suffix
			return 0
		fi
	done
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
