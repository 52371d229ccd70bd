# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The race detector needs cgo, and Go turns cgo off by itself where there is no C compiler.
RACE = $(if $(filter 1,$(shell go env CGO_ENABLED)),-race,$(warning no C compiler: testing without the race detector))

.PHONY: help build test test-unit test-acceptance test-examples test-kubernetes sim fuzz bench bench-scale soak profile lint fmt demo demo-recording dev vault release release-verify test-install image image-push test-image test-release-verify vulncheck clean

help: ## List what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 24

build: ## Build the plugin and the simulator into bin/
	@scripts/build.sh

test: test-unit test-acceptance ## Run all tests

test-unit: ## Run the unit tests with the race detector, then the simulations at length and the mutants
	go test $(RACE) -timeout 15m $$(go list ./... | grep -v '/test/acceptance')
	@# A module of its own, which ./... leaves out.
	go -C test/bench test $(RACE) ./...
	@# What is random has a short run above, of 8 scenarios and 500 lives.
	go test $(RACE) -count=1 -run '^TestRotationModel_' . -scenarios 25
	go test $(RACE) -count=1 -run '^TestSimulation$$' ./internal/rotation -lives 2000
	go test -count=1 -run '^TestSimulation$$' -v ./internal/rotation -lives 20000 | grep -v '^ *\(===\|---\)'
	go test -count=1 -run '^TestMutants$$' -timeout 15m ./internal/rotation -mutants

# How long make sim goes on, and the first of its seeds.
SIMTIME ?= 10m
SIMSEED ?= $(shell date +%s)000000

sim: ## Simulate lives of keys for ten minutes, or for SIMTIME
	go test -count=1 -run '^TestSimulation$$' -v -timeout 0 ./internal/rotation -seed $(SIMSEED) -for $(SIMTIME)

test-acceptance: build ## Run the built plugin on a real Vault server
	@VAULT_SERVER=$$(scripts/vault.sh); export VAULT_SERVER; "$$VAULT_SERVER" version; set -x; \
	go test $(RACE) -count=1 -v -timeout 40m ./test/acceptance/...

test-examples: build ## Run the examples, those that need OpenTofu too, and tell why the rest is not run
	@scripts/test-examples.sh

# Ten minutes on two cores the first time, for a Kubernetes API server, etcd and kubectl; two minutes from then on.
test-kubernetes: build ## Apply the Kubernetes examples to a real API server
	@VAULT_SERVER=$$(scripts/vault.sh); ETCD=$$(scripts/tool.sh etcd); KUBE_APISERVER=$$(scripts/tool.sh kube-apiserver); \
	KUBECTL=$$(scripts/tool.sh kubectl); export VAULT_SERVER ETCD KUBE_APISERVER KUBECTL; \
	go test -count=1 -v -timeout 10m -run '^TestExampleKubernetes_' ./test/acceptance/

fuzz: ## Run every fuzzer for a minute, or for FUZZTIME
	@scripts/fuzz.sh

lint: ## Check formatting, vet, linters, workflows, module files, licence headers, shell, Python and JavaScript
	@scripts/lint.sh

fmt: ## Format the Go source
	gofmt -w -- *.go cmd examples internal test tools

bench: ## Measure the engine next to a bare plugin and write docs/performance.md
	VAULT_SERVER=$$(scripts/vault.sh) go -C test/bench run .

# The largest number of configs of make bench-scale.
CONFIGS ?= 100000

bench-scale: ## Measure 1, 1,000 and CONFIGS configs on one mount and write that part of docs/performance.md
	VAULT_SERVER=$$(scripts/vault.sh) go -C test/bench run . scale -configs $(CONFIGS)

# How long make soak goes on.
DURATION ?= 30m

soak: ## Look for what grows or fails in thirty minutes of reads, rotations and patches, or in DURATION
	VAULT_SERVER=$$(scripts/vault.sh) go -C test/bench run . soak -duration $(DURATION)

profile: ## Profile the plugin and Vault while tokens are read, and tell where the time goes
	VAULT_SERVER=$$(scripts/vault.sh) go -C test/bench run . profile

demo: ## Show it all on a Vault server and a simulated API Connect, then stop them
	@scripts/demo.sh

demo-recording: ## Run the demo and make docs/demo.svg from its output
	@scripts/record-demo.sh

dev: ## The same, and stay up until Ctrl-C
	@scripts/dev.sh

vault: ## Print the path of the Vault server that tests and demo use
	@scripts/vault.sh

release: ## Make a signed release in dist/ from HEAD's tag; SNAPSHOT=1 takes whatever is there
	@SNAPSHOT=$(SNAPSHOT) scripts/release.sh

# The SHA256SUMS of a published release, to compare with.
SUMS ?=

release-verify: ## Build twice, apart, and compare; SUMS=file compares with a published SHA256SUMS
	@scripts/release-verify.sh $(SUMS)

test-install: ## Run the commands of docs/install.md on a snapshot and a real Vault server
	@scripts/test-install.sh

image: ## Make the container image of the release in dist/, which make release does too
	@scripts/image.sh build

# The repository that the image goes to, as in registry.example/vault-plugin-secrets-apic.
IMAGE ?=

image-push: ## Push the image of the release in dist/ to IMAGE, with signatures and bills of materials
	@SNAPSHOT=$(SNAPSHOT) scripts/image.sh push $(IMAGE)

test-image: ## Run the image's commands of docs/install.md, from a registry on loopback and on a real Vault server
	@scripts/test-image.sh

test-release-verify: ## See make release-verify refuse a list with one digit changed
	@scripts/test-release-verify.sh

# Another database than Go's own, such as file:///path/to/vulndb/data/osv where there is no network.
GOVULNDB ?=

vulncheck: ## Look for known vulnerabilities in what the plugin calls
	@govulncheck=$$(scripts/tool.sh govulncheck); "$$govulncheck" $(if $(GOVULNDB),-db $(GOVULNDB)) ./cmd/vault-plugin-secrets-apic

clean: ## Remove what was built here; the Vault server and the tools stay in the user's cache
	rm -rf bin dist
