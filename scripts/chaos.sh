#!/usr/bin/env bash
# Random kills under load, then power cuts (root only), each followed by the
# books: scripts/chaos.sh [KILLS] [CUTS] [SEED]
set -euo pipefail
cd "$(dirname "$0")/.."
seed=${3:+-seed $3}
scripts/rig.sh chaos -kills "${1:-1000}" $seed
scripts/rig.sh chaos -powercut "${2:-20}" $seed
