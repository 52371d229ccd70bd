# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The race detector needs cgo, and Go turns cgo off by itself where there is no C compiler.
RACE = $(if $(filter 1,$(shell go env CGO_ENABLED)),-race,$(warning no C compiler: testing without the race detector))

.PHONY: help build test test-unit test-acceptance fuzz bench lint fmt demo dev vault clean

help: ## List what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 24

build: ## Build the plugin and the simulator into bin/
	@scripts/build.sh

test: test-unit test-acceptance ## Run all tests

test-unit: ## Run the unit tests, with the race detector
	go test $(RACE) -timeout 10m $$(go list ./... | grep -v '/test/acceptance')

test-acceptance: build ## Run the built plugin on a real Vault server
	@VAULT_SERVER=$$(scripts/vault.sh); export VAULT_SERVER; "$$VAULT_SERVER" version; set -x; \
	go test $(RACE) -count=1 -v -timeout 20m ./test/acceptance/...

fuzz: ## Run every fuzzer for a minute, or for FUZZTIME
	@scripts/fuzz.sh

lint: ## Check formatting, vet, staticcheck, module files, licence headers, shell, Python and JavaScript
	@scripts/lint.sh

fmt: ## Format the Go source
	gofmt -w -- *.go cmd examples internal test

bench: ## Measure the engine next to a bare plugin and write docs/performance.md
	go run ./test/bench

demo: ## Show it all on a Vault server and a simulated API Connect, then stop them
	@scripts/demo.sh

dev: ## The same, and stay up until Ctrl-C
	@scripts/dev.sh

vault: ## Print the path of the Vault server that tests and demo use
	@scripts/vault.sh

clean: ## Remove what was built here; the Vault server stays in the user's cache
	rm -rf bin
