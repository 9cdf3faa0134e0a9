#!/usr/bin/env bash
# The benchmark: builds the rig and runs it beside the programs in bin/.
set -euo pipefail
cd "$(dirname "$0")/.."
tool=$(mktemp -d); trap 'rm -rf "$tool"' EXIT
go build -o "$tool/rig" ./scripts/rig
"$tool/rig" bench -bin bin ${1:+-short}
