#!/usr/bin/env bash
# Builds the rig and runs one of its verbs on the programs in bin/:
# scripts/rig.sh bench|noisy|exact|chaos|cluster|mutants|soak [FLAG ...]
set -euo pipefail
cd "$(dirname "$0")/.."
verb=${1:?a verb of scripts/rig}; shift
tool=$(mktemp -d); trap 'rm -rf "$tool"' EXIT
CGO_ENABLED=0 go build -o "$tool/rig" ./scripts/rig
"$tool/rig" "$verb" -bin bin "$@" & rig=$!
# An interrupt must reach the rig, which undoes what outlives a process.
trap 'kill -TERM "$rig" 2>/dev/null' INT TERM
status=0; wait "$rig" || status=$?
if kill -0 "$rig" 2>/dev/null; then wait "$rig" || status=$?; fi
exit "$status"
