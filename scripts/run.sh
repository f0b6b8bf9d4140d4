#!/usr/bin/env bash
# Starts engine and proxy on this machine, prints curl lines when they are ready, and stops both on Ctrl-C or when one
# ends. Settings come from the environment and from CONFIG_FILE as always; what nobody set gets values for trying things
# out. MODEL names a model of scripts/models/table, which is fetched and served.
set -euo pipefail
cd "$(dirname "$0")/.."

engine=${ENGINE:-bin/tandem-engine}
proxy=${PROXY:-bin/tandem-proxy}
unset ENGINE PROXY
if [ -n "${MODEL:-}" ] && [ "$MODEL" != demo ]; then
  [ -z "${MODELS_DIR:-}" ] || echo "run: serving $MODEL, not what is in MODELS_DIR=$MODELS_DIR" >&2
  file=$(scripts/models/fetch.sh "$MODEL")
  MODELS_DIR=$(dirname "$(dirname "$file")")
  export MODELS_DIR DEFAULT_MODEL="$MODEL"
fi

# value NAME prints what a setting is, nobody_set NAME tells whether that is the default.
value() { awk -v name="$1" '$1 == name && NF > 2 { print $2 }' <<<"$settings"; }
nobody_set() { awk -v name="$1" '$1 == name && $NF == "default" { found = 1 } END { exit !found }' <<<"$settings"; }

# Without keys there is one to try things out with. Anything else that is wrong is told, and ends this.
key=your-api-key
if ! settings=$("$proxy" check-config 2>/dev/null); then
  settings=$(API_KEYS=demo:demo-key "$proxy" check-config)
  nobody_set API_KEYS_FILE || "$proxy" check-config
  export API_KEYS=demo:demo-key
  key=demo-key
fi

dir=$(mktemp -d "${TMPDIR:-/tmp}/tandem.XXXXXX")
if nobody_set HOST; then export HOST=127.0.0.1; fi
if nobody_set RATE_LIMIT; then export RATE_LIMIT=120/minute; fi
if nobody_set ENGINE_SOCKET; then export ENGINE_SOCKET=$dir/engine.sock; fi

port=$(value PORT)
address=${HOST:-$(value HOST)}
case $address in
  0.0.0.0 | ::) address=127.0.0.1 ;;
esac
case $address in
  *:*) url="[$address]:$port" ;;
  *) url=$address:$port ;;
esac
# Another server there would be taken for ours.
if (exec 3<>"/dev/tcp/$address/$port") 2>/dev/null; then
  echo "run: something listens on $url already; stop it, or take another port: PORT=8001 make run" >&2
  rm -rf "$dir"
  exit 1
fi

pids=()
stop() {
  trap - EXIT INT TERM HUP
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" || true; done
  rm -rf "$dir"
}
trap stop EXIT
trap 'exit 0' INT TERM HUP # of a terminal that is closed

"$proxy" serve & pids+=($!)
"$engine" supervise & pids+=($!)

scheme=http
[ -z "$(value TLS_CERT_FILE)" ] || scheme=https

# get PATH [ACCEPT] prints the reply to GET without needing curl. Behind TLS it only sees that somebody listens.
get() {
  exec 3<>"/dev/tcp/$address/$port" || return 1
  [ "$scheme" = http ] || return 0
  printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nAccept: %s\r\nConnection: close\r\n\r\n' "$1" "${2:-*/*}" >&3
  cat <&3
}
ready() {
  local reply
  reply=$(get /readyz) || return 1
  [ "$scheme" = https ] || [[ $reply == 'HTTP/1.1 200 '* ]]
}
while ! (ready) 2>/dev/null; do
  for pid in "${pids[@]}"; do
    kill -0 "$pid" 2>/dev/null || { echo "run: a program ended before the server was ready; see its last lines above" >&2; exit 1; }
  done
  sleep 0.2
done

# The lines to try are about what is there: another model where one is installed, since the demo model then isn't.
prompt='What is the capital of France?' model='"adapter_version":"v1.0","base_model":"demo"'
models=$( (get /models) 2>/dev/null || true)
if [[ $models != *'"base_model":"demo"'* && $models =~ \"base_model\":\"[^\"]+\" ]]; then
  prompt='Name the capital of France.' model=${BASH_REMATCH[0]}
fi
header=" -H '$(value API_KEY_HEADER): $key'"
case $(value AUTH_DISABLED) in
  true | yes | on | 1) header= ;;
esac
metrics=$scheme://$url
if [ -n "$(value METRICS_ADDR)" ]; then
  metrics=http://$(value METRICS_ADDR)
  metrics=${metrics/#http:\/\/:/http:\/\/127.0.0.1:}
fi
metrics="  curl $metrics$(value METRICS_PATH)"
case $(value PROMETHEUS_ENABLED) in
  false | no | off | 0) metrics= ;;
esac

# The page comes first, where there is one; behind TLS nobody can look.
page="  $scheme://$url/  in a browser: what it does now, and a place to try prompts"
case $(value PAGE_ENABLED) in
  false | no | off | 0) page= ;;
  *) [ "$scheme" = https ] || [[ $( (get / text/html) 2>/dev/null || true) == *'<!doctype html>'* ]] ||
    page="  $scheme://$url/  (a plain table: this build has no live page)" ;;
esac

cat >&2 <<END

Tandem is ready on $scheme://$url (Ctrl-C stops it). Try:

${page:+$page

}  curl $scheme://$url/infer -H 'Content-Type: application/json'$header \\
    -d '{"prompt":"$prompt","max_new_tokens":32,$model}'

  curl $scheme://$url/health
  curl $scheme://$url/status
  curl $scheme://$url/models
$metrics

END
wait -n "${pids[@]}"
echo "run: a program ended; stopping the other" >&2
exit 1
