# The two commands: `make up` and `make check`. Both install what is missing; on a fresh Debian machine run them as root.

SHELL      := bash
GO         := $(shell scripts/go.sh)
export PATH := $(CURDIR)/bin:$(dir $(GO)):$(PATH)
export GOTOOLCHAIN := local

DATA       ?= /var/lib/penstock
TOOL       := $(GO) tool -modfile=tools/go.mod
# The engine's runc, pinned in tools/go.mod and built beside penstock.
RUNC       := github.com/opencontainers/runc

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

up: ## install, build, start Penstock, serve a real model, print a curl
	@scripts/up.sh "$(DATA)"

down: ## end the apps' containers and the server
	@bin/penstock down --data "$(DATA)"

build: bin/penstock bin/containerd-shim-runc-v2 bin/runc ## penstock and its engine, into bin/

.PHONY: bin/penstock
bin/penstock:
	CGO_ENABLED=0 $(GO) build -ldflags '-s -w' -o $@ ./cmd/penstock

.PHONY: bin/containerd-shim-runc-v2
bin/containerd-shim-runc-v2:
	CGO_ENABLED=0 $(GO) build -ldflags '-s -w' -o $@ ./cmd/containerd-shim-runc-v2

bin/runc: tools/go.mod
	@scripts/packages.sh gcc libc6-dev libseccomp-dev pkg-config
	CGO_ENABLED=1 $(GO) build -modfile=tools/go.mod -tags 'seccomp netgo osusergo' -ldflags "-s -w -extldflags '-static'" -o $@ $(RUNC)

langdetect: ## the binary of examples/langdetect
	cd examples/langdetect && CGO_ENABLED=0 $(GO) build -buildvcs=false -ldflags '-s -w' -o bin/langdetect .

chat: examples/chat/weights/model.safetensors ## the binary and the weights of examples/chat
	cd examples/chat && CGO_ENABLED=0 $(GO) build -buildvcs=false -ldflags '-s -w' -o bin/chat .

# The same bytes every time; they are not in the repository.
examples/chat/weights/model.safetensors: examples/chat/weights/main.go
	cd examples/chat && CGO_ENABLED=0 $(GO) run ./weights -size 64MiB -o weights/model.safetensors

example-torch: ## installs PyTorch and trains the weights of examples/torch
	@scripts/packages.sh mmdebstrap python3-torch
	/usr/bin/python3 examples/torch/train.py

example-llama: examples/llama/weights/model.gguf ## the modules and a small untrained model of examples/llama
	@command -v npm >/dev/null || scripts/packages.sh nodejs npm
	cd examples/llama && npm ci --ignore-scripts --omit=optional --no-audit --no-fund

# The same bytes every time. Put a real model there, and it is used instead.
examples/llama/weights/model.gguf:
	@command -v node >/dev/null || scripts/packages.sh nodejs
	node examples/llama/generate.mjs $@

example-vad: ## the program, the model and sounds of examples/vad
	@scripts/packages.sh gcc libc6-dev
	@command -v npm >/dev/null || scripts/packages.sh nodejs npm
	cd examples/vad && npm ci --ignore-scripts --omit=optional --no-audit --no-fund
	cd examples/vad && CGO_ENABLED=1 $(GO) build -buildvcs=false -v -ldflags '-s -w' -o bin/vad .
	scripts/sounds.sh examples/vad/sounds

deb: build ## a Debian package of bin/, into dist/
	@scripts/deb.sh dist

check: ## all that CI runs, cheapest first
	@scripts/check.sh

check-nightly: check ## make check, then what takes too long for each change: more rounds, a server with the race detector, long fuzzing
	@scripts/nightly.sh

bench-handover: build ## 20 hand-overs, 20 restarts of control, 100 revision switches and 100 restarts under load; as root
	PENSTOCK_HANDOVERS=20 PENSTOCK_SWITCHES=100 PENSTOCK_RESTARTS=100 CGO_ENABLED=0 $(GO) test -count=1 -timeout 60m -v ./test/e2e/restarts \
	  -run 'TestServer/roles_are_replaced_under_load|TestRevisionSwitchesLoseNothing|TestRestartsLoseNothing'

fmt: ## format, and use the newest idioms
	gofmt -w $$(git ls-files '*.go')
	$(GO) fix ./...

golden: ## rewrite the expected answers of golden tests; read the diff
	$(GO) test ./internal/... -run Golden -update

bench-images: build ## what moving a 1.2 GB image costs, beside skopeo; as root
	PENSTOCK_FIGURES=1 CGO_ENABLED=0 $(GO) test -count=1 -timeout 20m -v -run TestImageFigures ./test/e2e/images

bench-replicas: build ## what 200 replicas of a tiny app cost: time, memory, CPU at rest; as root
	PENSTOCK_REPLICAS=200 CGO_ENABLED=0 $(GO) test -count=1 -timeout 20m -v -run TestManyReplicas ./test/e2e/operate

bench-zero: build ## what 100 apps at zero cost, 32 of them with a standby: memory, and CPU over 10 minutes; as root
	PENSTOCK_APPS=100 PENSTOCK_REST=10m CGO_ENABLED=0 $(GO) test -count=1 -timeout 40m -v -run TestManyAppsAtZero ./test/e2e/operate

.PHONY: help up down build deb langdetect chat example-torch example-llama example-vad check check-nightly bench-handover bench-images bench-replicas bench-zero fmt golden
