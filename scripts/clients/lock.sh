#!/usr/bin/env bash
# Takes the newest versions of the clients into the locks: run it, then make test-clients, then commit both. The hashes
# of all files of a version are taken, so that the locks fit other systems and Pythons from 3.11 on.
set -euo pipefail
cd "$(dirname "$0")"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/uv"
"$work/uv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9
for list in python/locks/*.in; do
	"$work/uv/bin/uv" pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--no-emit-index-url "$list" -o "${list%.in}.txt"
done

cd node
rm -rf package-lock.json node_modules
mapfile -t packages < <(node -p 'Object.keys(JSON.parse(fs.readFileSync("package.json")).dependencies).map((n) => n + "@latest").join("\n")')
npm install --save-exact --ignore-scripts --no-audit --no-fund --omit-lockfile-registry-resolved "${packages[@]}"
# Addresses are of no use in a lock.
node -e 'const f = "package-lock.json", l = JSON.parse(fs.readFileSync(f));
for (const p of Object.values(l.packages)) { delete p.funding; delete p.resolved; }
fs.writeFileSync(f, JSON.stringify(l, null, 2) + "\n")'
