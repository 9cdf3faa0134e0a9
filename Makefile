# Bulkhead. `make` alone prints the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS     := -s -w -X main.version=$(VERSION)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.7.0
export CGO_ENABLED := 0

.PHONY: help
help: ## Print the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

.PHONY: build
build: ## Build the programs into bin/
	@mkdir -p bin
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/bulkhead ./supervisor
	go build -trimpath -ldflags '-s -w' -o bin/bulkhead-worker ./worker
	go build -trimpath -ldflags '-s -w' -o bin/bulkhead-provider-openai ./plugins/openai/bulkhead-provider-openai
	go build -trimpath -ldflags '-s -w' -o bin/bulkhead-provider-echo ./plugins/echo/bulkhead-provider-echo

.PHONY: run
run: build ## Build and start one node with two demo tenants
	bin/bulkhead dev

.PHONY: test
test: build ## Run all tests
	CGO_ENABLED=1 go test -race -timeout 15m ./...

.PHONY: lint
lint: ## gofmt, go vet and staticcheck
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "not gofmt'd:"; echo "$$out"; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (default 10s)
	scripts/fuzz.sh $(or $(FUZZTIME),10s)

.PHONY: exact
exact: build ## 1,000 parallel requests against limits: never one more, never fewer than fit
	scripts/rig.sh exact

.PHONY: chaos
chaos: build ## KILLS (1000) random kills and CUTS (20) power cuts of one node, FAULTS (300) of a cluster of three; then the books
	scripts/chaos.sh $(or $(KILLS),1000) $(or $(CUTS),20)
	scripts/cluster.sh $(or $(FAULTS),300) $(SEED)

.PHONY: mutants
mutants: build ## Four builds with a promise broken on purpose: the campaigns must see each (root)
	scripts/rig.sh mutants

.PHONY: upgrade
upgrade: build ## FAULTS (40) of a cluster whose nodes change between this build and that of the revision FROM
	scripts/upgrade.sh '$(FROM)' $(or $(FAULTS),40) $(SEED)

.PHONY: bench
bench: build ## Cost and isolation, side by side with a bare Go proxy
	scripts/bench.sh

.PHONY: soak
soak: build ## SOAK minutes (60) of load with memory and descriptor slopes
	scripts/soak.sh $(or $(SOAK),60)

.PHONY: realmodel
realmodel: build ## The main job on the real language model in the file MODEL
	MODEL='$(MODEL)' scripts/realmodel.sh

.PHONY: terraform
terraform: ## Build the Terraform provider and try it with a real OpenTofu, which is built once into the cache
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/terraform-provider-bulkhead ./supervisor/terraform-provider-bulkhead
	scripts/terraform.sh

.PHONY: check
check: lint test ## What CI runs
	scripts/fuzz.sh 500x
	scripts/rig.sh exact
	scripts/chaos.sh 200 3
	scripts/cluster.sh 8 11
	scripts/soak.sh 20s
	scripts/bench.sh -short -check

.PHONY: clean
clean: ## Remove bin/ and the demo data
	rm -rf bin .bulkhead
