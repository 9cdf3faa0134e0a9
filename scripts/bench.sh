#!/usr/bin/env bash
# The benchmark beside the programs in bin/: scripts/bench.sh [-short] [-check].
# -short takes under three minutes, without it about a quarter of an hour; -check
# fails when the victim of a noisy neighbour had any error, and never on a time.
set -euo pipefail
cd "$(dirname "$0")/.."
exec scripts/rig.sh bench "$@"
