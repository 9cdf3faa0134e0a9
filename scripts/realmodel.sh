#!/usr/bin/env bash
# The main job on real input: tenant "real" on a real language model, tenant
# "globex" on the echo adapter, both through openai-go, streaming and not; prints
# the transcript and what was booked.
#
#   MODEL=FILE.gguf scripts/realmodel.sh
#
# MODEL is any small GGUF model. Node and npm are needed, and the npm registry
# once (RUNTIME names a folder that keeps what is installed; default: a temporary one).
set -euo pipefail
cd "$(dirname "$0")/.."
: "${MODEL:?the path of a GGUF model file}"
MODEL=$(readlink -f "$MODEL")
work=$(mktemp -d); node=; model=
cleanup() {
  [ -n "$node" ] && kill "$node" 2>/dev/null && wait "$node" || true
  [ -n "$model" ] && kill "$model" 2>/dev/null && wait "$model" || true
  rm -rf "$work"
}
trap cleanup EXIT
runtime=${RUNTIME:-$work/runtime}
mkdir -p "$runtime"
cp scripts/realmodel/server.mjs scripts/realmodel/package.json "$runtime/"
if [ ! -d "$runtime/node_modules/node-llama-cpp" ]; then
  (cd "$runtime" && npm install --no-audit --no-fund --loglevel=error) || { echo "realmodel: npm cannot install node-llama-cpp" >&2; exit 1; }
fi
free() { go run ./scripts/transcript -free; }
port=$(free); data=$(free); admin=$(free)
(cd "$runtime" && exec node server.mjs "$MODEL" "$port") > "$work/model.log" 2>&1 & model=$!
bin/bulkhead dev --data "$work/data" --listen "127.0.0.1:$data" --admin-listen "127.0.0.1:$admin" > "$work/node.log" 2>&1 & node=$!
for _ in $(seq 300); do grep -q ready "$work/model.log" && grep -q curl "$work/node.log" && break; sleep 0.1; done
grep -q ready "$work/model.log" || { cat "$work/model.log" >&2; exit 1; }
set -a; . "$work/data/dev.env"; set +a
bulkhead() { bin/bulkhead "$@"; }
bulkhead apply -f - <<YAML
kind: Tenant
metadata: {name: real}
spec: {owner: owner@real.example, cost_center: CC-1, limits: {daily: {tokens: 100000, cost: "1.00"}}}
---
kind: Project
metadata: {name: stories, tenant: real}
spec: {environments: {prod: {}}}
---
kind: ServiceAccount
metadata: {name: writer, tenant: real, project: stories}
spec: {owner: dev@real.example}
---
kind: Provider
metadata: {name: local, tenant: real}
spec: {adapter: openai, base_url: "http://127.0.0.1:$port/v1", allow_private: true}
---
kind: Route
metadata: {name: tiny, tenant: real}
spec: {targets: [{provider: local, model: tiny}]}
YAML
bulkhead apply -f - <<YAML
kind: PriceBook
metadata: {name: default}
spec:
  currency: USD
  prices:
    - {provider: local, model: tiny, per: 1000000, input: "0.25", output: "2.00"}
    - {provider: echo, model: echo, per: 1000000, input: "0.25", output: "2.00"}
YAML
key=$(bulkhead key create --tenant real --project stories --env prod --service-account writer -o json | sed 's/.*"key": *"\([^"]*\)".*/\1/' | grep -o 'bh_[A-Za-z0-9_]*' | head -1)
export BASE_URL="$BULKHEAD_URL/v1" REAL_KEY=$key ECHO_KEY=$GLOBEX_PROD_KEY
go run ./scripts/transcript
sleep 1.5 # receipts are booked once a second
say() { echo; echo "\$ bulkhead $*"; bulkhead "$@"; }
say usage report --by tenant,model
say logs --tenant real
say logs --tenant globex
