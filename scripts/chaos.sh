#!/usr/bin/env bash
# Random kills under load: scripts/chaos.sh [KILLS] [SEED]
set -euo pipefail
cd "$(dirname "$0")/.."
tool=$(mktemp -d); trap 'rm -rf "$tool"' EXIT
go build -o "$tool/rig" ./scripts/rig
"$tool/rig" chaos -bin bin -kills "${1:-1000}" ${2:+-seed "$2"}
