# What people and CI run. Every target says what it does; `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

TARGET_DIR ?= target
DIST := $(TARGET_DIR)/dist
TRIPLE := x86_64-unknown-linux-gnu
SERVICES := banger-network banger-storage banger-images banger-vms banger-dns banger-sessions
HELPERS := banger-keeper banger-netns

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: build
build: guest ## Build everything, and lay it out as it is installed, in target/dist
	cargo build --workspace --bins --exclude banger-guest
	mkdir -p $(DIST)/bin $(DIST)/lib/banger
	ln -f $(TARGET_DIR)/debug/banger $(DIST)/bin/
	ln -f $(addprefix $(TARGET_DIR)/debug/,$(SERVICES) $(HELPERS)) $(DIST)/lib/banger/
	cmp -s $(TARGET_DIR)/$(TRIPLE)/guest/banger-guest $(DIST)/lib/banger/banger-guest || \
		cp -p $(TARGET_DIR)/$(TRIPLE)/guest/banger-guest $(DIST)/lib/banger/banger-guest

.PHONY: guest
guest: ## Build the guest's agent, static and small
	CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static" \
		cargo build --profile guest --target $(TRIPLE) -p banger-guest
