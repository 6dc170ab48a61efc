# Every target has one line of help after ##; `make` prints them.

BUF                := v1.75.0
GOLANGCI_LINT      := v2.15.0
PROTOC_GEN_GO      := v1.36.12
PROTOC_GEN_GO_GRPC := v1.6.2

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
# The agent never shows gRPC traces; without them it is 2.5 MB smaller.
AGENT_TAGS := grpcnotrace
# How long each fuzz target runs; finding the smallest input of a kind may take
# a second of it and no more, since it would take most otherwise.
FUZZTIME ?= 30s

SHELL := bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help build images demo test prove check generate fleet-test fuzz bench bench-inner tools clean

help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build trustcast and trustcast-agent into bin/, static and stripped
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/trustcast ./cmd/trustcast
	CGO_ENABLED=0 go build -trimpath -tags $(AGENT_TAGS) -ldflags '$(LDFLAGS)' -o bin/trustcast-agent ./cmd/trustcast-agent

# `git describe` may say what a tag may not have.
TAG   = $(subst +,-,$(VERSION))
IMAGE = docker build --quiet --file deploy/Dockerfile --build-arg VERSION='$(VERSION)' --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)"

images: build ## build the images trustcast/trustcast and trustcast/agent, tagged by version and latest
	$(IMAGE) --target server --tag trustcast/trustcast:$(TAG) --tag trustcast/trustcast:latest .
	$(IMAGE) --target agent --tag trustcast/agent:$(TAG) --tag trustcast/agent:latest .

demo: build ## show it all on this machine: a registry, five hosts, a rotation; no root, no Docker
	go run ./test/demo

# The packages that go further when TRUSTCAST_PROVE is set, and print figures.
PROOFS := ./test/explore ./test/sim ./test/mutants ./test/crash
# Leaves the figures, and everything about what fails.
FIGURES := grep --line-buffered -vE '^(=== (RUN|PAUSE|CONT|NAME) |( *)--- PASS)'

test: ## run all tests that need neither root nor Docker, with the race detector
	go test -race -timeout 15m $$(go list ./... | grep -vE '/test(/(explore|sim|mutants|crash|contract))?$$')
	go test -race -timeout 15m -v ./test | $(FIGURES)
	go test -timeout 15m -v ./test/contract | $(FIGURES)
	go test -race -timeout 25m -v $(PROOFS) | $(FIGURES)

prove: ## prove the rotation in full: exploration, a simulated year, mutants, all crash points, fuzzing; no race detector
	TRUSTCAST_PROVE=1 go test -count=1 -timeout 30m -v -run '$(or $(RUN),.)' $(PROOFS) | $(FIGURES)
	$(MAKE) --no-print-directory fuzz FUZZTIME=5s

check: .tools/ready ## formatting, vet, lint, protocol, generated code, import rules
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo 'not formatted: run gofmt -w on the files above' >&2; exit 1; }
	go vet ./...
	go vet -tags faults,crashpoints ./...
	.tools/golangci-lint run
	.tools/buf lint
	@new=$$(mktemp -d) && trap 'rm -rf "$$new"' EXIT && \
	.tools/buf generate -o "$$new" && \
	for f in $$(cd "$$new" && find . -name '*.go'); do diff -u "$$f" "$$new/$$f" || { echo "generated code differs: run 'make generate'" >&2; exit 1; }; done
	go test -count=1 -run '^TestImports' ./test

generate: .tools/ready ## make the Go code of proto/ anew
	.tools/buf generate

fleet-test: ## run the tests on real Docker engines (root; skipped with the reason elsewhere)
	TRUSTCAST_FLEET=1 go test -count=1 -timeout 45m -v ./test/fleet

fuzz: ## run each fuzz target for FUZZTIME (30s), one after the other
	@grep -rl --include='*_test.go' '^func Fuzz' . | sort | while read -r file; do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\)(.*/\1/p' "$$file"); do \
			said=$$(go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s "./$$(dirname "$$file")" 2>&1) || { echo "$$said"; exit 1; }; \
			printf '%-28s %-15s %s\n' "$$(dirname "$$file")" "$$target" "$$(echo "$$said" | grep '^fuzz: elapsed' | tail -n 1)"; \
		done || exit 1; \
	done

bench: ## measure beside the peers, in tables with goals (TABLE=auth: one); writes bench/results.md
	go run ./bench $(if $(TABLE),-table $(TABLE))

bench-inner: ## run the Go benchmarks of the inner parts
	go test -run '^$$' -bench . -benchmem ./...

tools: .tools/ready ## install buf, golangci-lint and the protocol compilers into .tools/

.tools/ready: Makefile
	GOBIN=$(CURDIR)/.tools go install github.com/bufbuild/buf/cmd/buf@$(BUF)
	GOBIN=$(CURDIR)/.tools go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)
	GOBIN=$(CURDIR)/.tools go install google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GEN_GO)
	GOBIN=$(CURDIR)/.tools go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@$(PROTOC_GEN_GO_GRPC)
	@touch $@

clean: ## remove what was built
	rm -rf bin
