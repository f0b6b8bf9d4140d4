# Where the source of llama.cpp comes from, shared by bootstrap.sh and build-llama.sh. The npm package ships the release
# as a git bundle, which makes it reachable through any package mirror; its checksum is pinned here.
# shellcheck shell=bash
# shellcheck disable=SC2034 # used by the scripts that read this file

package_name=node-llama-cpp
package_version=3.22.1
package_sha512=6e5b488a9b9699cd76dc7eed30880318a4ac4ab866865418795502e3c5d38d55bb5c624988927209d95333343f2e25a83e4183a5c2f816f883a60c3ba9f4e20f
bundle_path=package/llama/gitRelease.bundle
llama_release=v0.5.0

cache_root() {
	if [ -n "${TANDEM_CACHE:-}" ]; then
		printf '%s\n' "$TANDEM_CACHE"
	elif [ -n "${XDG_CACHE_HOME:-}" ]; then
		printf '%s\n' "$XDG_CACHE_HOME/tandem"
	else
		printf '%s\n' "${HOME:?HOME, XDG_CACHE_HOME or TANDEM_CACHE must be set}/.cache/tandem"
	fi
}

# LLAMA_TARBALL names a copy that was fetched by other means (no network).
tarball_path() {
	printf '%s\n' "${LLAMA_TARBALL:-$(cache_root)/download/$package_name-$package_version.tgz}"
}

# Prints the path of the package, fetched if need be. Uses say and die of the script that reads this file.
fetch_tarball() {
	local tarball dir
	tarball=$(tarball_path)
	if [ ! -s "$tarball" ]; then
		[ -z "${LLAMA_TARBALL:-}" ] || die "LLAMA_TARBALL=$LLAMA_TARBALL doesn't exist"
		command -v npm >/dev/null || die "npm is needed to fetch $package_name; run scripts/bootstrap.sh"
		dir=$(dirname "$tarball")
		mkdir -p "$dir"
		dir=$(mktemp -d "$dir/fetch.XXXXXX")
		say "fetching $package_name@$package_version (34 MiB) ..."
		(cd "$dir" && npm pack --silent "$package_name@$package_version" >/dev/null) || die "npm pack $package_name@$package_version failed"
		check_tarball "$dir/$package_name-$package_version.tgz"
		mv "$dir/$package_name-$package_version.tgz" "$tarball"
		rmdir "$dir"
	fi
	check_tarball "$tarball"
	printf '%s\n' "$tarball"
}

check_tarball() {
	printf '%s  %s\n' "$package_sha512" "$1" | sha512sum --check --status ||
		die "$1 has another checksum than the pinned one; remove it and try again"
}
