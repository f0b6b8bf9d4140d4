#!/usr/bin/env bash
# Builds llguidance (what makes answers follow a JSON schema, a pattern or a grammar) once for each version and
# toolchain into a cache outside the tree and prints the directory of the result:
#
#   include/llguidance.h
#   lib/libtandem_llguidance.a
#   licences.txt                 the licence texts of all crates in it
#
#   scripts/build-llguidance.sh          build or find; the path on stdout, progress on stderr
#   scripts/build-llguidance.sh --key    print the path only, without building
#
# Environment: TANDEM_CACHE, JOBS, CARGO_HOME.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=native/source.sh
. "$here/native/source.sh"
# shellcheck source=native/rust.sh
. "$here/native/rust.sh"
crate=$here/native/llguidance

say() { printf 'llguidance: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}

ingredients() {
	cat "$crate/Cargo.toml" "$crate/Cargo.lock" "$crate/src/lib.rs" "$here/build-llguidance.sh" | sha256sum
	"$rustc" --version
	uname -m
}

# A copy is built, so that nothing is written into the tree.
build() {
	local started=$SECONDS jobs=()
	aside=$(mktemp -d "$root/building.XXXXXX")
	trap 'say "left for inspection: $aside"' EXIT
	cp -r "$crate" "$aside/crate"
	[ -z "${JOBS:-}" ] || jobs=(--jobs "$JOBS")
	say "fetching the crates ..."
	RUSTC=$rustc "$cargo" vendor --quiet --locked --versioned-dirs --manifest-path "$aside/crate/Cargo.toml" "$aside/vendor" >/dev/null
	say "building ($("$rustc" --version); about a minute) ..."
	RUSTC=$rustc "$cargo" build --quiet --release --locked "${jobs[@]}" --manifest-path "$aside/crate/Cargo.toml" --target-dir "$aside/target" >&2
	mkdir -p "$aside/result/include" "$aside/result/lib"
	cp "$aside"/vendor/llguidance-*/llguidance.h "$aside/result/include/"
	cp "$aside/target/release/libtandem_llguidance.a" "$aside/result/lib/"
	collect_licences >"$aside/result/licences.txt"
	mv "$aside/result" "$result"
	trap - EXIT
	rm -rf "$aside"
	say "built in $((SECONDS - started)) s: $result"
}

# The licence texts of what ends up in the library: MIT where a crate leaves the choice, else all that it brings; one
# text once, with the crates that share it.
collect_licences() {
	local name version licence dir texts sum
	mkdir "$aside/texts"
	RUSTC=$rustc "$cargo" tree --quiet --locked --offline --prefix none --edges normal --manifest-path "$aside/crate/Cargo.toml" --format '{p} {l}' |
		sed 's/ (\*)$//; s/ (proc-macro)//' | sort -u | while read -r name version licence; do
		dir=$aside/vendor/$name-${version#v}
		[ "$name" != tandem-llguidance ] || continue
		mapfile -t texts < <(find "$dir" -maxdepth 1 -type f -iname '*MIT*' | sort)
		[ "${#texts[@]}" -gt 0 ] || mapfile -t texts < <(find "$dir" -maxdepth 1 -type f \( -iname 'licen[sc]e*' -o -iname 'copying*' -o -iname 'unlicense*' \) | sort)
		[ "${#texts[@]}" -gt 0 ] || texts=("$here/native/llguidance/no-text.txt")
		sum=$(cat "${texts[@]}" | sha256sum | cut -c 1-16)
		cat "${texts[@]}" >"$aside/texts/$sum.text"
		printf '%s %s (%s)\n' "$name" "${version#v}" "$licence" >>"$aside/texts/$sum.crates"
	done
	for sum in $(cd "$aside/texts" && grep -H '' ./*.crates | sort -t: -k2 | cut -d: -f1 | awk '!seen[$0]++'); do
		printf '%s\n' "---- $(paste -sd ';' "$aside/texts/$sum" | sed 's/;/, /g')"
		printf '\n'
		cat "$aside/texts/${sum%.crates}.text"
		printf '\n'
	done
}

find_rust || die "Rust $rust_least or later is needed; run scripts/bootstrap.sh"
root=$(cache_root)/llguidance
result=$root/$(sed -n 's/^llguidance = { version = "=\([^"]*\)".*/\1/p' "$crate/Cargo.toml")-$(ingredients | sha256sum | cut -c 1-16)

if [ "${1:-}" = --key ]; then
	printf '%s\n' "$result"
	exit 0
fi
if [ ! -d "$result" ]; then
	mkdir -p "$root"
	exec 9>"$result.lock"
	if ! flock -n 9; then
		say "another build of the same is running; waiting for it ..."
		flock 9
	fi
	[ -d "$result" ] || build
fi
printf '%s\n' "$result"
