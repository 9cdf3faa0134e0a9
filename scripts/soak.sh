#!/usr/bin/env bash
# Load with tenants that wake and hibernate, for MINUTES or any duration (20s,
# 1h): scripts/soak.sh [60]
set -euo pipefail
cd "$(dirname "$0")/.."
d=${1:-60}
[[ $d =~ ^[0-9]+$ ]] && d=${d}m
exec scripts/rig.sh soak -d "$d"
