#!/usr/bin/env bash
# Prints the path of a redis-server for tests: REDIS_SERVER, one on the PATH, or Debian's, fetched into the cache and
# unpacked there: nothing is installed and no service is started. When there is none: says why and prints nothing, or
# fails with REDIS_REQUIRED=true.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=native/source.sh
. "$here/native/source.sh"

say() { printf 'redis: %s\n' "$*" >&2; }

without() {
	if [ "${REDIS_REQUIRED:-false}" = true ]; then
		say "$*"
		exit 1
	fi
	say "$*; the tests that need a real one are SKIPPED"
	exit 0
}

for program in "${REDIS_SERVER:-}" redis-server valkey-server; do
	if [ -n "$program" ] && path=$(command -v "$program"); then
		printf '%s\n' "$path"
		exit 0
	fi
done
[ -z "${REDIS_SERVER:-}" ] || without "REDIS_SERVER=$REDIS_SERVER can't be run"

kept=$(cache_root)/redis-server
program=$kept/redis-server
if [ -x "$program" ] && "$program" --version >/dev/null 2>&1; then
	printf '%s\n' "$program"
	exit 0
fi
command -v apt-get >/dev/null && command -v dpkg >/dev/null || without "no redis-server on the PATH, and no apt-get to fetch one with"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/archives"

# The program, and the libraries it needs beside the C library.
fetch() {
	local libraries
	libraries=$(apt-cache depends redis-tools 2>/dev/null | awk '$1 == "Depends:" && $2 ~ /^lib/ && $2 != "libc6" { print $2 }')
	# shellcheck disable=SC2086 # a list of names
	(cd "$work/archives" && apt-get -q -o APT::Sandbox::User="$(id -un)" download redis-server redis-tools $libraries >&2)
}

say "fetching Debian's redis-server into $kept"
if ! fetch; then
	update=(apt-get -q -o DPkg::Lock::Timeout=300 update)
	[ "$(id -u)" -eq 0 ] || update=(sudo -n "${update[@]}")
	"${update[@]}" >&2 && fetch || without "apt-get can't download redis-server"
fi
for package in "$work"/archives/*.deb; do
	dpkg -x "$package" "$work/root"
done
cat > "$work/root/redis-server" <<'EOF'
#!/bin/sh
# Runs the unpacked program with its libraries.
root=$(dirname "$0")
LD_LIBRARY_PATH=$(echo "$root"/usr/lib/*-linux-gnu*) exec "$root/usr/bin/redis-server" "$@"
EOF
chmod +x "$work/root/redis-server"
"$work/root/redis-server" --version >/dev/null 2>&1 || without "Debian's redis-server doesn't start here"
mkdir -p "$(dirname "$kept")"
rm -rf "$kept"
mv "$work/root" "$kept"
printf '%s\n' "$program"
