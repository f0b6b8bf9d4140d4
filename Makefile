# Everything is set up by the targets themselves: tools by scripts/bootstrap.sh, llama.cpp by scripts/build-llama.sh (cached outside
# this tree). `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION ?= 1.0.0
REVISION := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS := -X main.version=$(VERSION) -X main.revision=$(REVISION)
GO ?= go
BIN := bin
# What calls methods by name is left out, so that the linker can drop those that nobody calls: half of the program.
PROXY_TAGS := grpcnotrace,validator_novalidatefn
# The live page: auto builds it where Node is there, 1 insists on it, 0 leaves it out.
UI ?= auto
ifeq ($(UI),0)
  PROXY_TAGS := $(PROXY_TAGS),noui
  PAGE := true
else
  PAGE := scripts/build-ui.sh $(if $(filter auto,$(UI)),--if-possible)
endif
# Says what is compiled, since Go itself is silent, for minutes where its cache is empty.
COMPILING = echo '$(1): compiling, which takes a minute or two the first time ...' >&2
BUILD_PROXY = mkdir -p $(BIN) && $(PAGE) && $(call COMPILING,proxy) \
  && CGO_ENABLED=0 $(GO) build -tags $(PROXY_TAGS) -ldflags '$(LDFLAGS)' -o $(BIN)/tandem-proxy ./proxy
TOOL := $(GO) tool -modfile=scripts/tools/go.mod
# The environment of a build with llama.cpp; the first call builds the library.
NATIVE = scripts/bootstrap.sh && env_lines="$$(scripts/build-llama.sh --env)" && eval "$$env_lines"
# The real model of the tests. Where it can't be fetched those that need it are skipped; in continuous integration they fail.
REAL_MODEL = { SMOLLM2="$${SMOLLM2:-$$(scripts/models/fetch.sh smollm2)}" || { [ "$${CI:-}" != true ] \
  && echo 'make: without SmolLM2, what needs it is SKIPPED' >&2; }; } && export SMOLLM2
# A GPU that the CPU plays, for the tests of what the engine does with devices.
TEST_GPU = TESTGPU="$$(scripts/testgpu/build.sh)" && export TESTGPU
# The packages that are something else with llama.cpp; all others are tested before. The end-to-end tests take the
# longest and begin first; the engine is built before them, or they would compile it beside go test.
WITH_LLAMA = ./scripts/e2e/ $(filter-out ./scripts/e2e/,$(addprefix ./,$(sort $(dir $(shell grep -rl '^//go:build .*llama' --include='*.go' engine scripts/e2e scripts/gpubench)))))

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

.PHONY: build
build: ## both programs, with llama.cpp and the live page (UI=0 leaves it out), into bin/; CUDA=1: for NVIDIA's GPUs
	@$(NATIVE) && mkdir -p $(BIN) && $(call COMPILING,engine) \
	  && $(GO) build -tags llama -ldflags '$(LDFLAGS)' -o $(BIN)/tandem-engine ./engine \
	  && $(BUILD_PROXY) \
	  && ln -sfn "$$BACKEND_DIR" $(BIN)/lib
	@missing=$$(ldd -r $(BIN)/tandem-engine 2>&1 | grep 'undefined symbol' | grep -v 'symbol: nvml' || true); \
	  [ -z "$$missing" ] || { echo "$$missing" >&2; exit 1; } # the linker doesn't say so any more: go-nvml makes it lenient

.PHONY: run
run: model build ## proxy and engine on this machine, with the demo model or MODEL=smollm2; key demo-key
	@MODEL='$(MODEL)' scripts/run.sh

.PHONY: model
model: # before the build, which takes longer and would only be in the way of a message
	@[ -z '$(MODEL)' ] || [ '$(MODEL)' = demo ] || scripts/models/fetch.sh '$(MODEL)' >/dev/null

.PHONY: mock
mock: ## the same without a model: a mock engine that echoes (no C compiler needed)
	@mkdir -p $(BIN) && $(call COMPILING,engine) \
	  && CGO_ENABLED=0 $(GO) build -ldflags '$(LDFLAGS)' -o $(BIN)/tandem-engine-mock ./engine \
	  && $(BUILD_PROXY)
	@ENGINE=$(BIN)/tandem-engine-mock ENGINE_MOCK=true scripts/run.sh

.PHONY: test-monitoring
test-monitoring: ## drive every monitoring endpoint of a running server and check shape and numbers
	@$(BUILD_PROXY)
	@$(BIN)/tandem-proxy test-monitoring

.PHONY: test
test: ## unit and end-to-end tests with the demo model and SmolLM2, race detector on
	@$(REAL_MODEL) && $(NATIVE) && $(TEST_GPU) && REDIS_SERVER="$$(scripts/redis.sh)" && export REDIS_SERVER && $(GO) test -race -shuffle=on -timeout=30m ./... \
	  && $(GO) build -o $(BIN)/promtool -modfile=scripts/tools/go.mod github.com/prometheus/prometheus/cmd/promtool \
	  && $(GO) build -o $(BIN)/amtool -modfile=scripts/tools/go.mod github.com/prometheus/alertmanager/cmd/amtool \
	  && PROMTOOL=$(CURDIR)/$(BIN)/promtool AMTOOL=$(CURDIR)/$(BIN)/amtool scripts/check-rules.sh \
	  && $(GO) build -race -tags llama -o /dev/null ./engine \
	  && PROMTOOL=$(CURDIR)/$(BIN)/promtool $(GO) test -race -shuffle=on -timeout=30m -tags llama $(WITH_LLAMA)
	@$(MAKE) --no-print-directory test-deploy

.PHONY: test-go
test-go: ## unit tests that need only Go
	CGO_ENABLED=0 $(GO) test ./...

.PHONY: chaos
chaos: ## kill, stop and drain engines under load: 1,000 requests, 100 kills (about ten minutes)
	@$(REAL_MODEL) && $(NATIVE) && scripts/chaos.sh

.PHONY: test-same
test-same: ## DETERMINISTIC=true: 200 requests alone, 32 at once, and through ten kills give the same answers (some minutes)
	@$(NATIVE) && $(REAL_MODEL) && SAME_REQUESTS=200 SAME_KILLS=10 $(GO) test -count=1 -v -timeout=90m -tags llama -run SameRequestSameAnswer ./scripts/e2e

.PHONY: test-prometheus
test-prometheus: ## a real Prometheus scrapes a server in which faults are injected
	@scripts/test-prometheus.sh

.PHONY: test-page
test-page: ## the live page in headless Chromium, with screenshots in out/page (needs Node)
	@scripts/test-page.sh

.PHONY: test-clients
test-clients: ## what people use against both programs: SDKs, LangChain, LiteLLM, … (needs Python 3.11 and Node; ENGINE=mock is faster)
	@scripts/clients.sh

.PHONY: test-deploy
test-deploy: ## decode what is in deploy/ strictly, check it against the docs and try it with both programs
	@cd deploy/test && $(GO) vet ./... && $(GO) test -count=1 ./... # what it reads is outside its module, where no cache looks

.PHONY: test-pod
test-pod: ## build both images and run them as a pod, with podman (root; a quarter of an hour the first time)
	@scripts/test-pod.sh

.PHONY: test-cluster
test-cluster: ## build both images and a Kubernetes node, and try the manifests on it (root; long the first time)
	@scripts/test-cluster.sh

.PHONY: ui
ui: ## bundle the live page (needs Node), which every build of the proxy embeds from then on
	@scripts/build-ui.sh

.PHONY: test-peer
test-peer: ## token ids and greedy answers beside llama-server of the same source (which takes minutes to build, once)
	@$(NATIVE) && server="$$(SERVER=1 scripts/build-llama.sh)/bin/llama-server" \
	  && LLAMA_SERVER="$$server" $(GO) test -count=1 -v -tags llama -run LlamaServers ./engine/llama

.PHONY: test-schemas
test-schemas: ## constrained output on JSON schemas with known instances: FILE=…, or the JSON Schema Test Suite
	@scripts/bootstrap.sh && scripts/schemas.sh $(FILE)

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (default one minute)
	@scripts/fuzz.sh $(or $(FUZZTIME),1m)

.PHONY: bench
bench: ## figures of proxy, wire and engine, and a server at work beside llama-server; QUICK=1: the last, shortened
	@$(REAL_MODEL) && scripts/bench.sh

GPU_PACK := out/tandem-gpu-bench
.PHONY: pack-gpu
pack-gpu: ## a directory and an archive that try everything on a machine with an NVIDIA card: docs/gpu.md (long the first time)
	@scripts/gpubench/pack.sh $(GPU_PACK)

.PHONY: bench-gpu
bench-gpu: pack-gpu ## the same on this machine's card, eight minutes; results in out/tandem-gpu-bench/results
	@cd $(GPU_PACK) && ./bench-gpu $(FLAGS)

.PHONY: lint
lint: ## gofmt, go vet, staticcheck with and without llama.cpp, import rules, generated files
	@scripts/lint.sh

.PHONY: overload-plot
overload-plot: ## the simulation of overload, drawn for docs/operations.md
	$(GO) test ./proxy/inflight -count=1 -run TestGoodputUnderOverload -args -overload-plot=$(CURDIR)/docs/images/overload.svg

.PHONY: generate
generate: ## schema code (needs capnp 0.9 or later), the generated docs and licence lists
	$(GO) generate ./schema
	$(GO) run ./scripts/docs
	$(GO) run ./scripts/licences
	$(GO) run ./scripts/rules

.PHONY: clean
clean: ## remove what was built in this tree; the llama.cpp cache stays
	rm -rf $(BIN) out
	find proxy/server/page/dist -mindepth 1 ! -name .gitignore -delete
