#!/usr/bin/env bash
# Installs what a build of Tandem with llama.cpp needs on Debian 12 or Ubuntu 24.04, and nothing else. Does nothing when
# all of it is there. Go itself is not installed: the version in go.mod is checked by the go command.
#
#   scripts/bootstrap.sh            tools for the engine with llama.cpp
#   scripts/bootstrap.sh --check    only say what is missing; exit status 1 when something is
#   scripts/bootstrap.sh --models   what scripts/models/fetch.sh needs instead: pip
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=native/source.sh
. "$here/native/source.sh"
# shellcheck source=native/rust.sh
. "$here/native/rust.sh"

say() { printf 'bootstrap: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

missing_packages() {
	if [ "${1:-}" = --models ]; then
		missing_for_models
	else
		missing_for_build
	fi
}

# Command, Debian package. npm is needed only to fetch the source of llama.cpp, so not when it is already here.
missing_for_build() {
	local need=("gcc gcc" "g++ g++" "cmake cmake" "ninja ninja-build" "git git" "xz xz-utils" "flock util-linux" "make make") pair
	for pair in "${need[@]}"; do
		have "${pair% *}" || printf '%s\n' "${pair#* }"
	done
	if [ -z "${LLAMA_CPP_DIR:-}" ] && [ ! -s "$(tarball_path)" ] && ! have npm; then
		printf 'npm\n'
	fi
	if have gcc && ! printf '#include <stdlib.h>\n' | gcc -E -x c - >/dev/null 2>&1; then
		printf 'libc6-dev\n'
	fi
	find_rust || rust_packages
}

# Debian's Python comes without pip, and may be installed beside another that the PATH finds first.
missing_for_models() {
	have flock || printf 'util-linux\n'
	have_pip python3 || have_pip /usr/bin/python3 || printf 'python3-pip\n'
}
have_pip() { "$1" -c "import pip" 2>/dev/null; }

mapfile -t packages < <(missing_packages "$@")
if [ "${#packages[@]}" -eq 0 ]; then
	exit 0
fi

# docker-clean hooks empty the shared archive directory after every dpkg run, so this run has one of its own.
install_line="apt-get install -y --no-install-recommends ${packages[*]}"
if [ "${1:-}" = --check ]; then
	say "missing: ${packages[*]}"
	exit 1
fi
if ! have apt-get; then
	say "missing: ${packages[*]} (names of Debian packages); install them with this system's package manager"
	exit 1
fi

run=()
if [ "$(id -u)" -ne 0 ]; then
	if ! have sudo || ! sudo -n true 2>/dev/null; then
		say "missing: ${packages[*]}. Run this, then again what you ran:"
		say "    sudo apt-get update && sudo $install_line"
		exit 1
	fi
	run=(sudo -n)
fi

archives=$(mktemp -d)
trap 'rm -rf "$archives" 2>/dev/null || "${run[@]}" rm -rf "$archives"' EXIT
mkdir -p "$archives/partial"
chmod 755 "$archives"
options=(-o DPkg::Lock::Timeout=300 -o "Dir::Cache::archives=$archives" -o APT::Sandbox::User=root -o Dpkg::Use-Pty=0)

say "apt-get update ..."
"${run[@]}" apt-get "${options[@]}" -qq update >&2
mapfile -t packages < <(missing_packages "$@") # the names of some are known only now
say "apt-get install ${packages[*]} (a minute or two with npm or Rust) ..."
"${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" -q install -y --no-install-recommends "${packages[@]}" >&2

mapfile -t packages < <(missing_packages "$@")
if [ "${#packages[@]}" -ne 0 ]; then
	say "still missing after the installation: ${packages[*]}"
	find_rust || say "Rust $rust_least or later: Debian 12 has it in its security updates (bookworm-security); rustup brings it anywhere"
	exit 1
fi
say "done"
