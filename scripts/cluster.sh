#!/usr/bin/env bash
# Three hosts on this machine, random faults under load, then the books (root;
# iproute2 and nftables): scripts/cluster.sh [FAULTS] [SEED]
set -euo pipefail
cd "$(dirname "$0")/.."
exec scripts/rig.sh cluster -faults "${1:-40}" ${2:+-seed "$2"}
