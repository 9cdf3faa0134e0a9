#!/usr/bin/env bash
# A cluster of three whose nodes go from this build to that of another revision
# and back, one at a time, under load and faults; then the books (root; iproute2
# and nftables): scripts/upgrade.sh REVISION [FAULTS] [SEED]
set -euo pipefail
cd "$(dirname "$0")/.."
revision=${1:?a revision whose build is compatible with this one}
other=$(mktemp -d)
trap 'git worktree remove --force "$other/src"; rm -rf "$other"' EXIT
git worktree add --quiet --detach "$other/src" "$revision"
make --quiet -C "$other/src" build
scripts/rig.sh cluster -other "$other/src/bin" -only upgrade,kill,restart,transfer,power-cut,cut-off,wipe \
	-faults "${2:-40}" ${3:+-seed "$3"}
