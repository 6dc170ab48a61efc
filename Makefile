# Every target has one line of help after ##; `make` prints them.

BUF                := v1.75.0
GOLANGCI_LINT      := v2.15.0
PROTOC_GEN_GO      := v1.36.12
PROTOC_GEN_GO_GRPC := v1.6.2

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
# The agent is on every host, so it is built to be small, and only here, also for the
# benchmarks. It never shows gRPC traces: 2.5 MB. Functions are inlined where its time
# goes, in cryptography, scheduler, collector and sockets, and nowhere else: 0.8 MB.
# They begin at each 16 bytes instead of each 32: 0.1 MB.
AGENT_TAGS := grpcnotrace
AGENT_INLINED := crypto/... vendor/golang.org/x/crypto/... runtime internal/runtime/... internal/bytealg internal/poll internal/sync reflect sync/...
AGENT_FLAGS := -tags=$(AGENT_TAGS) -gcflags=all=-l $(AGENT_INLINED:%=-gcflags=%=) -ldflags='$(LDFLAGS) -funcalign=16'
# How long each fuzz target runs; finding the smallest input of a kind may take
# a second of it and no more, since it would take most otherwise.
FUZZTIME ?= 30s

SHELL := bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help build size agent-flags images man completions deb demo test test-registry test-proofs prove check generate fleet-test fuzz bench bench-inner tools clean

help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build trustcast and trustcast-agent into bin/, static and stripped
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/trustcast ./cmd/trustcast
	CGO_ENABLED=0 go build -trimpath $(AGENT_FLAGS) -o bin/trustcast-agent ./cmd/trustcast-agent

size: build ## print what the programs weigh, stripped
	@for program in trustcast trustcast-agent; do printf '%-16s %6.2f MB\n' $$program "$$(stat --format %s bin/$$program)e-6"; done

agent-flags: # how the agent is built, one flag a line; the benchmarks and tests ask
	@printf '%s\n' $(AGENT_FLAGS)

# `git describe` may say what a tag may not have.
TAG   = $(subst +,-,$(VERSION))
IMAGE = docker build --quiet --file deploy/Dockerfile --build-arg VERSION='$(VERSION)' --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)"

images: build ## build the images trustcast/trustcast and trustcast/agent, tagged by version and latest
	$(IMAGE) --target server --tag trustcast/trustcast:$(TAG) --tag trustcast/trustcast:latest .
	$(IMAGE) --target agent --tag trustcast/agent:$(TAG) --tag trustcast/agent:latest .

# A page is written from the commands themselves, by a test since no other program can
# import them. Its date is the source's: two builds of one source are the same.
EPOCH = $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null || date +%s))

man: ## write the man pages into build/man/
	@rm -rf build/man
	MAN_DIR='$(CURDIR)/build/man' MAN_DATE="$$(date --utc --date=@$(EPOCH) +%F)" MAN_VERSION='$(VERSION)' go test -count=1 -run '^TestManPages$$' ./cmd/...

completions: build ## write what bash, fish and zsh complete with into build/completions/
	@rm -rf build/completions && mkdir -p build/completions/bash build/completions/fish build/completions/zsh
	@for program in trustcast trustcast-agent; do \
		bin/$$program completion bash >build/completions/bash/$$program && \
		bin/$$program completion fish >build/completions/fish/$$program.fish && \
		bin/$$program completion zsh >build/completions/zsh/_$$program || exit 1; \
	done

deb: man completions ## build the Debian packages trustcast and trustcast-agent into build/deb/
	deploy/deb/build.sh '$(VERSION)' build/deb

demo: build ## show it all on this machine: a registry, five hosts, a rotation; no root, no Docker
	go run ./test/demo

# The packages that go further when TRUSTCAST_PROVE is set, and print figures.
PROOFS := ./test/explore ./test/sim ./test/mutants ./test/crash
# Leaves the figures, and everything about what fails.
FIGURES := grep --line-buffered -vE '^(=== (RUN|PAUSE|CONT|NAME) |( *)--- PASS)'

test: ## run all tests that need neither root nor Docker, with the race detector
	go test -race -timeout 25m -v $$(go list ./... | grep -vE '/test(/(explore|sim|mutants|crash|contract|cli))?$$') | $(FIGURES)
	@# Each script's transcript is shown when it fails, otherwise what was skipped.
	@log=$$(mktemp) && trap 'rm -f "$$log"' EXIT && { go test -race -timeout 25m -v ./test/cli >"$$log" 2>&1 || { cat "$$log"; exit 1; }; } && grep -E '^(ok|.*--- SKIP)' "$$log"
	go test -race -timeout 25m -v ./test | $(FIGURES)
	go -C test/kubernetes test -v ./... | $(FIGURES)
	@echo 'the registry beside the proofs: this takes minutes, and is shown in the end'
	@# The first mostly waits, the others compute.
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target test-registry test-proofs

test-registry:
	go test -timeout 40m -v ./test/contract | $(FIGURES)

test-proofs:
	go test -race -timeout 40m -v $(PROOFS) | $(FIGURES)

prove: ## prove the rotation in full: exploration, a simulated year, mutants, all crash points, fuzzing; no race detector
	TRUSTCAST_PROVE=1 go test -count=1 -timeout 60m -v -run '$(or $(RUN),.)' $(PROOFS) | $(FIGURES)
	$(MAKE) --no-print-directory fuzz FUZZTIME=5s

check: .tools/ready ## formatting, vet, lint, protocol, generated code and reference, import rules
	@files=$$(gofmt -l .) && test -z "$$files" || { printf '%s\n' "$$files" 'not formatted: run gofmt -w on the files above' >&2; exit 1; }
	go vet ./...
	go vet -tags faults,crashpoints ./...
	go -C test/kubernetes vet ./...
	.tools/golangci-lint run
	.tools/buf lint
	@new=$$(mktemp -d) && trap 'rm -rf "$$new"' EXIT && \
	.tools/buf generate -o "$$new" && \
	for f in $$(cd "$$new" && find . -name '*.go'); do diff -u "$$f" "$$new/$$f" || { echo "generated code differs: run 'make generate'" >&2; exit 1; }; done
	go test -count=1 -run '^TestReference' ./cmd/...
	go test -count=1 -run '^TestImports' ./test

generate: .tools/ready ## make the Go code of proto/ anew, and what docs/reference has of the commands
	.tools/buf generate
	go test -count=1 -run '^TestReference' ./cmd/... -update

fleet-test: ## run the tests on real Docker engines and of the packages (root; skipped with the reason elsewhere)
	TRUSTCAST_FLEET=1 go test -count=1 -parallel 2 -timeout 60m -v ./test/fleet
	TRUSTCAST_FLEET=1 go test -count=1 -timeout 40m -v ./test/packages

FUZZ = $(shell grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z0-9]*' . | sed 's|^\./\(.*\)/[^/]*:func |fuzz/\1/|' | sort)

fuzz: ## run each fuzz target for FUZZTIME (30s), two at a time since most of it is building
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target $(FUZZ)

# Until Go 1.27 a target's time that ends while an input is tried may read as a
# failure (go.dev/issue/75804): a bare "context deadline exceeded", no failing input.
fuzz/%:
	@said=$$(go test -run '^$$' -fuzz '^$(*F)$$' -fuzztime $(FUZZTIME) -fuzzminimizetime 1s ./$(*D) 2>&1) || \
		{ grep -qx ' *context deadline exceeded' <<<"$$said" && ! grep -q 'Failing input\|panic' <<<"$$said"; } || { echo "$$said"; exit 1; }; \
	printf '%-28s %-15s %s\n' $(*D) $(*F) "$$(echo "$$said" | grep '^fuzz: elapsed' | tail -n 1)"

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
	rm -rf bin build
