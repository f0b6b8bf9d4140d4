#!/usr/bin/env bash
# Makes the virtual environment of server.py in this directory, which Tandem is measured beside, and prints its path;
# progress goes to stderr. The first time it downloads about 2.5 GB and takes some minutes; 4.1 GB are kept in the cache
# outside the tree, most of them libraries for GPUs that PyPI's torch is linked with. With a pip that is told of an
# index of builds for CPUs (PIP_EXTRA_INDEX_URL) these aren't installed.
#
#   OWNER_STACK=$(scripts/bench/transformers/install.sh)
#   scripts/bench/transformers/install.sh --if-installed     installs nothing; prints none where it isn't installed
#
# Environment: PYTHON (3.11 or later with venv; default: python3), TANDEM_CACHE.
set -euo pipefail
shopt -s inherit_errexit # what fails inside of $(…) ends it

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../../native/source.sh
. "$here/../../native/source.sh"

say() { printf 'owner-stack: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}

lists=("$here/requirements.txt" "$here/requirements-cuda.txt")
python=${PYTHON:-python3}
"$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
	die "$python must be Python 3.11 or later with venv (Debian: apt-get install python3-venv)"
key=$({
	grep -hv "^#" "${lists[@]}"
	"$python" -c 'import sys; print(sys.version_info[:2], sys.base_prefix)'
} | sha256sum | cut -c 1-16)
home=$(cache_root)/peers/transformers-$key
complete=$home/complete # written last

install_list() {
	"$home/bin/pip" install --disable-pip-version-check --no-cache-dir --no-deps --only-binary=:all: -r "$1" >&2
}

install_all() {
	say "installing FastAPI and transformers into $home: about 2.5 GB to download, the first time ..."
	rm -rf "$home" # what a killed one left
	"$python" -m venv "$home"
	install_list "${lists[0]}"
	"$home/bin/python" -c 'import torch' 2>/dev/null || install_list "${lists[1]}"
	"$home/bin/python" -c 'import accelerate, fastapi, gguf, torch, transformers, uvicorn' ||
		die "what was installed in $home can't be imported"
	touch "$complete"
}

case ${1:-} in
--if-installed)
	if [ -e "$complete" ]; then printf '%s\n' "$home"; else echo none; fi
	exit 0
	;;
'') ;;
*)
	say "usage: scripts/bench/transformers/install.sh [--if-installed]"
	exit 2
	;;
esac

mkdir -p "$(dirname "$home")"
exec 9>"$home.lock"
flock 9
[ -e "$complete" ] || install_all
printf '%s\n' "$home"
