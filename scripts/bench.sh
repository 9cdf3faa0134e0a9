#!/usr/bin/env bash
# The benchmark beside the programs in bin/: scripts/bench.sh [-short] [-check].
# -short takes a few minutes, without it about 25; -check fails when the victim of
# a noisy neighbour or the neighbour of a lost node had any error, and never on a
# time. scripts/rig.sh fleet [-short] [-check] is the part about the cluster alone.
set -euo pipefail
cd "$(dirname "$0")/.."
exec scripts/rig.sh bench "$@"
