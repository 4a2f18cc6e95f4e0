# make help

CARGO ?= cargo
TESTBED = target/debug/testbed

.DEFAULT_GOAL := help
.PHONY: help plan-demo plan-test build lint test demo chaos siege sim sim-guards fleet fuzz test-guards clusters clusters-down clusters-status prerequisites

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

prerequisites:
	@tests/testbed/prerequisites.sh rust

# Before anything is compiled: what is going to take how long.
plan-demo plan-test: prerequisites
	@tests/testbed/plan.sh $(@:plan-%=%)

build: prerequisites ## compile everything
	$(CARGO) build --workspace --all-targets

lint: prerequisites ## formatting, clippy; licences and advisories where cargo-deny, scripts where shellcheck is installed
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny --offline check; else echo "cargo-deny is not installed: licences and advisories were not checked"; fi
	@if command -v shellcheck >/dev/null; then shellcheck -S warning .ci/run tests/*.sh tests/*/*.sh; else echo "shellcheck is not installed: scripts were not checked by it"; fi

test: plan-test lint build ## lint, then every test, on three real control planes of its own (the first time Kubernetes is built: minutes)
	@tests/testbed/run-tests.sh $(TESTBED)

# All of the workspace, so that features of dependencies are the same as in `build`, and what is built here serves there.
demo: plan-demo ## watch lockstep keep three clusters in step; DELAY=8 lets the targets' agents connect 8 s late
	$(CARGO) build --workspace --bin lockstep --bin testbed
	@$(TESTBED) binaries >/dev/null
	@tests/demo.sh

# MINUTES of faults, then healing and comparing; SEED repeats the faults of an earlier run.
MINUTES ?= 3
SEED ?=
chaos: build ## kill, freeze, cut off and restore everything for MINUTES (3), then compare; SEED repeats a run
	@$(TESTBED) binaries >/dev/null
	@target/debug/chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

siege: build ## hostile clients on every port of a hub for MINUTES (3), while commands must get through
	@target/debug/siege --minutes $(MINUTES)

# Without TARGET it tells which there are.
TARGET ?=
SECONDS ?= 60
fuzz: prerequisites ## feed TARGET inputs that break its laws, for SECONDS (60); needs cargo-fuzz
	@tests/fuzz/fuzz.sh $(SECONDS) $(TARGET)

# Without SEED it runs SEEDS histories; with it that one, with its log.
SEEDS ?= 1000
sim: prerequisites ## SEEDS (1000) random histories of a fleet in virtual time, every invariant checked; SEED shows one
	@$(CARGO) build --profile sim --package lockstep-sim --bin sim
	@target/sim/sim --seeds $(SEEDS) $(if $(SEED),--seed $(SEED))

# Built with a feature that nothing else turns on: some minutes.
ONLY ?=
sim-guards: prerequisites ## switch each guard off in turn: do SEEDS (1000) histories notice? ONLY names some, as in A,B+C
	@$(CARGO) build --profile sim --package lockstep-sim --bin sim --features mutants
	@target/sim/sim --guards --threads 2 --seeds $(SEEDS) $(if $(ONLY),--only $(ONLY))

test-guards: prerequisites ## switch each guard off in turn: does a test of the libraries notice? ONLY names some, as in A,B
	@tests/guards.sh $(if $(ONLY),$(ONLY))

# FAULTS is a list as in "429,500,api-cut", all, or none; SEED repeats the faults of an earlier run.
CLUSTERS ?= 100
OBJECTS ?= 1000
FAULTS ?= all
fleet: prerequisites ## sync CLUSTERS (100) simulated clusters of OBJECTS (1000) each with hub and agents, under faults; then compare
	@$(CARGO) build --release --package lockstep-fleet --bin fleet
	@target/release/fleet --clusters $(CLUSTERS) --objects $(OBJECTS) --faults $(FAULTS) $(if $(SEED),--seed $(SEED))

clusters: prerequisites ## start cluster-a, cluster-b and cluster-c, and leave them running
	@$(CARGO) build --quiet --package lockstep-tests --bin testbed
	@$(TESTBED) up

# These two work with the binary that started the clusters, so that work in progress that does not compile is no obstacle.
clusters-down: $(TESTBED) ## stop those, and remove their data
	@$(TESTBED) down

clusters-status: $(TESTBED) ## tell what runs
	@$(TESTBED) status

$(TESTBED): | prerequisites
	@$(CARGO) build --quiet --package lockstep-tests --bin testbed
