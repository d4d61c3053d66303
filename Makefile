# make help prints the targets.
GO ?= go
TOOL = $(GO) tool -modfile=tools/go.mod
# Seconds for each fuzz target.
FUZZTIME ?= 3
export CGO_ENABLED = 0

.PHONY: help build demo check test lint unit race fuzz integration soak bench bench-units bench-inflate bench-path bench-cache bench-prefetch bench-create bench-overlay bench-wan cover install uninstall clean

help: ## print the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

build: ## bin/cloopfs, a static binary
	$(GO) build -trimpath -o bin/ ./cmd/cloopfs

demo: ## mount a real image over HTTP and look inside; needs root, under 2 minutes
	@echo "make demo installs Debian packages and mounts file systems: it needs root"
	test/install
	@$(MAKE) --no-print-directory build
	$(GO) run ./test/demo

check: lint unit ## what needs neither root nor apt, under 2 minutes

test: ## everything; installs what is missing, needs root
	@echo "make test installs Debian packages, mounts file systems and uses loop devices: it needs root"
	test/install
	@times=; for part in lint race fuzz integration; do \
		begin=$$(date +%s); $(MAKE) --no-print-directory $$part || exit 1; \
		times="$$times $$part $$(($$(date +%s) - begin)) s;"; \
	done; echo "make test:$$times all passed"

lint: ## gofumpt, vet, staticcheck and others (.golangci.yml), both architectures
	$(TOOL) golangci-lint run
	$(GO) mod tidy -diff
	$(GO) vet -tags purego ./internal/inflate
	GOARCH=amd64 $(GO) build -o /dev/null ./...
	GOARCH=arm64 $(GO) build -o /dev/null ./...

unit: ## unit tests
	$(GO) test -count=1 -timeout 5m ./...

race: ## unit tests with the race detector, in random order; those of code for one machine as for others
	CGO_ENABLED=1 $(GO) test -race -shuffle=on -count=1 -timeout 10m ./...
	$(GO) test -tags purego -count=1 ./internal/inflate
	GOARCH=arm64 $(GO) test -exec qemu-aarch64 -count=1 -run 'Adler32|Damaged' ./internal/inflate

fuzz: ## each fuzz target for FUZZTIME seconds (3)
	test/fuzz $(FUZZTIME)

# How long those long tests run that can run for any time, and how often the process
# is killed under a read and under a write; SOAKWRITETIME is of random writes,
# SOAKFAULTTIME of random faults.
SOAKTIME ?= 60s
SOAKKILLS ?= 200
SOAKWRITEKILLS ?= 500
SOAKWRITETIME ?= 1h
SOAKOPS ?= 1000000
SOAKFAULTTIME ?= 30m

soak: build ## the long tests: SOAKTIME (60s) and SOAKWRITETIME (1h), SOAKFAULTTIME (30m), SOAKKILLS and SOAKWRITEKILLS kills (200, 500), SOAKOPS operations on an overlay (a million); needs root
	CLOOPFS_TEST_SOAK=$(SOAKTIME) $(GO) test -v -count=1 -timeout 30m -run '^TestEvictorUnderReaders$$' ./cache
	CLOOPFS_TEST_OPS=$(SOAKOPS) $(GO) test -v -count=1 -timeout 1h -run '^TestModel$$' ./overlay
	CLOOPFS_TEST_LARGE_DISK=10 $(GO) test -v -tags integration -count=1 -timeout 30m -run '^TestMemoryOfLargeDisk$$' ./test
	CLOOPFS_TEST_MUTANTS=$(SOAKTIME) $(GO) test -v -tags integration -count=1 -timeout 0 -run '^TestMutatedBlocks$$' ./test
	CLOOPFS_TEST_KILLS=$(SOAKKILLS) $(GO) test -v -tags integration -count=1 -timeout 1h -run '^TestKilledMounts$$' ./test
	CLOOPFS_TEST_OVERLAY_KILLS=$(SOAKWRITEKILLS) $(GO) test -v -tags integration -count=1 -timeout 2h -run '^TestOverlayKilled' ./test
	CLOOPFS_TEST_FAULTS=$(SOAKFAULTTIME) $(GO) test -v -tags integration -count=1 -timeout 0 -run '^TestRandomFaults$$' ./test
	CLOOPFS_TEST_OVERLAY_TIME=$(SOAKWRITETIME) $(GO) test -v -tags integration -count=1 -timeout 0 -run '^TestOverlayModel$$' ./test

integration: build ## real mounts, servers and tools; needs root and test/install
	$(GO) test -tags integration -count=1 -timeout 30m -p 1 ./fusefs ./test/...

bench: bench-inflate bench-path ## decoding, the mount and extract beside their peers, 11 rounds; needs root

bench-units: ## benchmarks of single packages, for benchstat
	$(GO) test -run '^$$' -bench . -benchmem -count 6 ./...

# The second time with every access checked.
bench-inflate: ## decoding zlib and LZO beside libdeflate and others, 11 rounds; needs root
	test/install packages.txt bench-packages.txt
	$(GO) test -tags integration -run '^$$' -bench 'Inflate|LZO' -benchtime 11x -timeout 60m ./test
	$(GO) test -tags 'integration purego' -run '^$$' -bench Inflate -benchtime 11x -timeout 60m ./test

bench-path: build ## the mount beside a FUSE server with nothing to do and QEMU's, extract beside Debian's, 11 rounds; needs root
	@echo "make bench-path installs Debian packages, mounts file systems, uses loop devices and drops the page cache: it needs root"
	test/install packages.txt bench-packages.txt
	$(GO) test -tags integration -run '^$$' -bench '^Benchmark(Sequential|Random|Extract|WarmFiles)$$' -benchtime 11x -timeout 60m ./test

bench-cache: build ## reading from a warm on-disk cache beside reading a local file; needs root
	$(GO) test -tags integration -run '^$$' -bench WarmCache -benchtime 7x -timeout 30m ./test

bench-prefetch: build ## prefetch beside curl, over a line of 50 ms; needs root
	$(GO) test -tags integration -run '^$$' -bench Prefetch -benchtime 5x -timeout 30m ./test

bench-create: build ## create beside Debian's create_compressed_fs: CPU time and size; needs root
	$(GO) test -tags integration -run '^$$' -bench Create -benchtime 3x -timeout 60m ./test

bench-overlay: build ## writing with --overlay beside go-fuse's loopback and QEMU's storage daemon; needs root
	$(GO) test -tags integration -run '^$$' -bench Overlay -benchtime 9x -timeout 30m ./test

# What bench-wan does: LINE/WORKLOAD, a regular expression for each, and how often.
WAN ?= .
WANROUNDS ?= 3

bench-wan: build ## cloopfs beside its peers over slow lines, WANROUNDS (3) times; hours, but WAN=metro/Files limits it; needs root
	@echo "make bench-wan installs Debian packages, mounts file systems and uses loop devices: it needs root"
	test/install packages.txt bench-packages.txt
	$(GO) test -v -tags integration -run '^$$' -bench '^BenchmarkWAN$$/$(WAN)' -benchtime $(WANROUNDS)x -timeout 0 ./test

cover: ## statement coverage of the unit tests
	$(GO) test -coverprofile=build/cover.out ./... && $(GO) tool cover -func=build/cover.out

# What install installs, and uninstall removes.
PROGRAM = $(DESTDIR)/usr/local/bin/cloopfs
HELPER = $(DESTDIR)/sbin/mount.cloopfs
SHARE = $(DESTDIR)/usr/local/share
FOR_BASH = $(SHARE)/bash-completion/completions/cloopfs
FOR_ZSH = $(SHARE)/zsh/site-functions/_cloopfs
FOR_FISH = $(SHARE)/fish/vendor_completions.d/cloopfs.fish

install: build ## install to $(DESTDIR)/usr/local, and the link for mount(8) to $(DESTDIR)/sbin
	install -D bin/cloopfs $(PROGRAM)
	install -d $(dir $(HELPER))
	ln -sf /usr/local/bin/cloopfs $(HELPER)
	bin/cloopfs completion bash | install -D -m 644 /dev/stdin $(FOR_BASH)
	bin/cloopfs completion zsh | install -D -m 644 /dev/stdin $(FOR_ZSH)
	bin/cloopfs completion fish | install -D -m 644 /dev/stdin $(FOR_FISH)

uninstall: ## remove what install has installed
	rm -f $(PROGRAM) $(HELPER) $(FOR_BASH) $(FOR_ZSH) $(FOR_FISH)

clean: ## remove what was built
	rm -rf bin build
