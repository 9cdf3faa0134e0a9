#!/bin/sh
# Generates adapter.pb.go and adapter_grpc.pb.go. Needs protoc on the PATH; the Go
# plugins are built at the pinned versions.
set -eu
cd "$(dirname "$0")"
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
go build -o "$bin/protoc-gen-go" google.golang.org/protobuf/cmd/protoc-gen-go
GOBIN="$bin" go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
PATH="$bin:$PATH" protoc --go_out=paths=source_relative:. --go-grpc_out=paths=source_relative:. adapter.proto
