# What people and CI run. Every target says what it does; `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

TARGET_DIR ?= target
DIST := $(TARGET_DIR)/dist
PROFILE ?= dev
# cargo's folder for its own profile `dev` is `debug`.
BUILT = $(TARGET_DIR)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
TRIPLE := x86_64-unknown-linux-gnu
SERVICES := banger-network banger-storage banger-images banger-vms banger-dns banger-sessions
HELPERS := banger-keeper banger-netns

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: build
build: guest ## Build everything, and lay it out as it is installed, in target/dist
	cargo build --profile $(PROFILE) --workspace --bins --exclude banger-guest
	mkdir -p $(DIST)/bin $(DIST)/lib/banger
	ln -f $(BUILT)/banger $(DIST)/bin/
	ln -f $(addprefix $(BUILT)/,$(SERVICES) $(HELPERS)) $(DIST)/lib/banger/
	cmp -s $(TARGET_DIR)/$(TRIPLE)/guest/banger-guest $(DIST)/lib/banger/banger-guest || \
		cp -p $(TARGET_DIR)/$(TRIPLE)/guest/banger-guest $(DIST)/lib/banger/banger-guest
	@git describe --always --dirty --exclude='*' >$(DIST)/lib/banger/commit 2>/dev/null || rm -f $(DIST)/lib/banger/commit

.PHONY: guest
guest: ## Build the guest's agent, static and small
	CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static" \
		cargo build --profile guest --target $(TRIPLE) -p banger-guest

# Distribution packages: what banger runs, and what its tests and its build need.
RUNTIME_PACKAGES := qemu-system-x86 mmdebstrap erofs-utils e2fsprogs uidmap slirp4netns nftables git
BUILD_PACKAGES := gcc libc6-dev
DEB_PACKAGES := dpkg-dev lintian
TEST_PACKAGES := dnsutils dbus systemd systemd-container util-linux procps strace openssh-client $(DEB_PACKAGES)
.PHONY: packages
packages: ## Install the distribution packages that are missing (asks for sudo only then)
	@missing=$$(for p in $(RUNTIME_PACKAGES) $(BUILD_PACKAGES) $(EXTRA_PACKAGES); do \
		dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
		sudo=""; [ $$(id -u) = 0 ] || { sudo=sudo; echo "sudo is needed to install:" $$missing; }; \
		$$sudo apt-get update -qq; \
		DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$missing; \
	fi

.PHONY: rust
rust:
	@command -v cargo >/dev/null || { echo "Rust 1.90 or newer is needed, see https://rustup.rs"; exit 1; }

.PHONY: nextest
nextest: rust
	@command -v cargo-nextest >/dev/null || cargo install --locked cargo-nextest

.PHONY: run
run: packages rust build ## Run a command on this very repo in a fresh machine
	@echo "+ banger vm run --rm . -- sh -c 'uname -a; git log -1 --oneline; ls'"
	@$(DIST)/bin/banger vm run --rm . -- sh -c 'uname -a; git log -1 --oneline; ls'

.PHONY: deb
deb: EXTRA_PACKAGES := $(DEB_PACKAGES)
deb: packages rust ## Make a Debian package of this very commit
	$(MAKE) --no-print-directory build PROFILE=release DIST=$(TARGET_DIR)/deb
	packaging/deb/build $(TARGET_DIR)/deb $(TARGET_DIR)/banger.deb
	lintian --fail-on error $(TARGET_DIR)/banger.deb
	@echo "sudo apt install ./$(TARGET_DIR)/banger.deb"

.PHONY: check
check: nextest ## Format, lints and unit tests: what you run all day
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	cargo nextest run --workspace --exclude banger-integration --all-features

.PHONY: test
test: EXTRA_PACKAGES := $(TEST_PACKAGES)
test: packages nextest build ## Everything CI runs: lints, unit tests, real machines
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	cargo nextest run --workspace --all-features --profile $(if $(BANGER_TEST_FULL),full,ci)
	$(MAKE) --no-print-directory fuzz
	$(MAKE) --no-print-directory deny

.PHONY: test-firecracker
test-firecracker: EXTRA_PACKAGES := $(TEST_PACKAGES)
test-firecracker: packages nextest build ## The life of a machine with a real Firecracker (BANGER_TEST_FIRECRACKER=PATH, else the one on PATH); needs root
	@export BANGER_TEST_FIRECRACKER="$${BANGER_TEST_FIRECRACKER:-$$(command -v firecracker || true)}"; \
	[ -n "$$BANGER_TEST_FIRECRACKER" ] || { echo "no Firecracker on PATH: BANGER_TEST_FIRECRACKER says where one is"; exit 1; }; \
	cargo nextest run -p banger-integration --test host --run-ignored only -E 'test(lives_with_firecracker)'

.PHONY: test-full
test-full: ## The same, with all of the long matrices of which `test` takes a part that is another one each day
	BANGER_TEST_FULL=1 $(MAKE) --no-print-directory test

# For each target; all of them take a minute on two cores.
FUZZ_MS ?= 7000
.PHONY: fuzz
fuzz: ## Strangers' bytes at every parser of the wire, for a minute
	BOLERO_RANDOM_TEST_TIME_MS=$(FUZZ_MS) cargo nextest run -p banger-schemas --all-features --test fuzz

.PHONY: blessed
blessed: build ## Write anew what tests compare with: the interfaces' documents, the command line's reference, polkit's policy
	BLESS=1 cargo nextest run -p banger-integration --test artifacts -E 'test(the_documents_are_what_the_services_say)'
	BLESS=1 cargo nextest run -p banger --test reference
	BLESS=1 cargo nextest run -p banger-schemas --all-features --test policy

.PHONY: deny
deny: ## Licences, sources, bans and advisories of what comes in from outside (needs cargo-deny)
	@if ! cargo deny --version >/dev/null 2>&1; then \
		echo "deny: skipped: 'cargo install cargo-deny --locked' installs what it needs"; exit 0; fi; \
	cargo deny check --allow duplicate bans licenses sources; \
	if cargo deny fetch db >/dev/null 2>&1; then cargo deny --offline check advisories; \
	else echo "deny: advisories skipped: their database cannot be fetched"; fi

.PHONY: bench
bench: EXTRA_PACKAGES := $(TEST_PACKAGES)
# What people install, and not what is quick to build.
bench: PROFILE := release
bench: packages build ## The numbers: banger against what it is measured by, in one table (4 minutes, and 5 to build it)
	cargo bench --profile dev -p banger-integration --bench numbers
