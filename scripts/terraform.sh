#!/usr/bin/env bash
# The Terraform provider's acceptance tests: a real OpenTofu against a real admin
# API. Arguments are handed to go test.
#
#   scripts/terraform.sh [-run REGEXP]
#
# OpenTofu is built from its module, once for each version, into
# ${XDG_CACHE_HOME:-$HOME/.cache}/bulkhead: five to ten minutes of CPU, and the
# module proxy. TOFU names a program to use instead.
set -euo pipefail
cd "$(dirname "$0")/.."
version=v1.12.6
module=github.com/opentofu/opentofu
cache=${XDG_CACHE_HOME:-$HOME/.cache}/bulkhead
tofu=${TOFU:-$cache/tofu-$version}
if [ ! -x "$tofu" ]; then
  [ -z "${TOFU:-}" ] || { echo "terraform: $TOFU is no program" >&2; exit 1; }
  # `go install MODULE@VERSION` refuses a module with replace directives.
  mkdir -p "$cache"
  work=$(mktemp -d "$cache/build.XXXXXX")
  trap 'chmod -R u+w "$work" && rm -rf "$work"' EXIT
  echo "terraform: building OpenTofu $version into $cache" >&2
  (cd "$work" && printf 'module tools\n\ngo 1.26.0\n' > go.mod && go mod download "$module@$version")
  cp -R "$(go env GOMODCACHE)/$module@$version" "$work/source"
  chmod -R u+w "$work/source"
  (cd "$work/source" && go mod download && CGO_ENABLED=0 nice -n 10 go build -p 1 -trimpath -ldflags='-s -w' -o "$work/tofu" ./cmd/tofu)
  mv "$work/tofu" "$tofu"
  trap - EXIT
  chmod -R u+w "$work" && rm -rf "$work"
fi
config=$(mktemp)
trap 'rm -f "$config"' EXIT
# The file of the command line's own settings must exist and say nothing: another
# one's warnings end up in what the tests read.
TF_ACC=1 TF_ACC_TERRAFORM_PATH=$tofu TF_ACC_PROVIDER_HOST=registry.opentofu.org TF_ACC_PROVIDER_NAMESPACE=bulkhead-ai \
  CHECKPOINT_DISABLE=1 TF_CLI_CONFIG_FILE=$config \
  go test -count=1 -v -run "${RUN:-^TestAcc}" ./supervisor/internal/terraform "$@"
