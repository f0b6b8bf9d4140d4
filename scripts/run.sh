#!/usr/bin/env bash
# Starts engine and proxy on this machine, prints curl lines when they are ready, and stops both on Ctrl-C or when one ends.
# Settings come from the environment as always; what isn't set gets values for trying things out.
set -euo pipefail
cd "$(dirname "$0")/.."

engine=${ENGINE:-bin/tandem-engine}
proxy=${PROXY:-bin/tandem-proxy}
unset ENGINE PROXY

dir=$(mktemp -d "${TMPDIR:-/tmp}/tandem.XXXXXX")
export HOST=${HOST:-127.0.0.1} PORT=${PORT:-8000} RATE_LIMIT=${RATE_LIMIT:-120/minute}
export ENGINE_SOCKET=${ENGINE_SOCKET:-$dir/engine.sock}
key=your-api-key
if [ -z "${API_KEYS:-}${API_KEYS_FILE:-}${AUTH_DISABLED:-}${CONFIG_FILE:-}" ]; then
  export API_KEYS=demo:demo-key
  key=demo-key
fi

pids=()
stop() {
  trap - EXIT INT TERM
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" || true; done
  rm -rf "$dir"
}
trap stop EXIT
trap 'exit 0' INT TERM

"$proxy" serve & pids+=($!)
"$engine" supervise & pids+=($!)

address=$HOST
[ "$HOST" != 0.0.0.0 ] || address=127.0.0.1
url=http://$address:$PORT
# ready asks /readyz without needing curl. Behind TLS it only sees that somebody listens.
ready() {
  exec 3<>"/dev/tcp/$address/$PORT" || return 1
  [ -z "${TLS_CERT_FILE:-}" ] || return 0
  printf 'GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
  head -n 1 <&3 | grep -q ' 200 '
}
while ! (ready) 2>/dev/null; do
  for pid in "${pids[@]}"; do
    kill -0 "$pid" 2>/dev/null || { echo "run: a program ended before the server was ready; see its last lines above" >&2; exit 1; }
  done
  sleep 0.2
done

cat >&2 <<END

Tandem is ready on $url (Ctrl-C stops it). Try:

  curl $url/infer -H 'Content-Type: application/json' -H 'X-API-Key: $key' \\
    -d '{"prompt":"What is the capital of France?","max_new_tokens":32,"adapter_version":"v1.0","base_model":"demo"}'

  curl $url/health
  curl $url/status
  curl $url/models
  curl $url/prometheus

END
wait -n "${pids[@]}"
echo "run: a program ended; stopping the other" >&2
exit 1
