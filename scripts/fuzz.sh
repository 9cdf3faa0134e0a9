#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other, for TIME each: a
# duration, or a count such as 3000x, which on a busy machine is never cut off.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-10s}
for pkg in $(grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u); do
  for target in $(grep -rhoE '^func Fuzz[A-Za-z0-9_]+' "$pkg"/*_test.go | awk '{print $2}'); do
    echo "fuzz $pkg $target"
    CGO_ENABLED=1 go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$pkg"
  done
done
