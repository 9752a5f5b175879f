# The tasks of a developer. The work is in deploy/, so that each script can be read and run alone.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Features are resolved over the whole workspace, so that the binary and the tests share one build (docs/adr/0002).
BUILD := cargo build --locked --workspace --bin tailwater

.PHONY: help demo check test install release chaos chaos-proof bench fuzz build fmt lint docs-check chart deny clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## install what is missing, build, play a story, end by itself; STORY=winback|churn|upgrade|all, KEEP=1 leaves it running, KAFKA=real|embedded
	@deploy/setup.sh
	@KEEP='$(KEEP)' KAFKA='$(or $(KAFKA),real)' STORY='$(or $(STORY),winback)' deploy/demo/demo.sh

check: ## format, pages, clippy and the unit tests: two minutes with a warm build, and no broker
	@deploy/checks/check.sh

test: ## install what is missing, run every check and every test against real parts; ONLY=system|fuzz|chaos|… runs one step
	@deploy/checks/all.sh $(ONLY)

install: ## build the release binary and put it on the PATH: PREFIX=~/.local
	@deploy/setup.sh
	@deploy/release.sh install $(PREFIX)

release: ## build the release archive: dist/tailwater-<version>-<target>.tar.gz
	@deploy/setup.sh
	@deploy/release.sh archive

chaos: ## faults against the real program, and what the vendor saw; SEED=… MINUTES=… (2), RATE=… rows a second, EMBEDDED=1, BUG=…
	@deploy/setup.sh --tests
	@SEED='$(SEED)' MINUTES='$(MINUTES)' RATE='$(RATE)' EMBEDDED='$(EMBEDDED)' BUG='$(BUG)' deploy/checks/chaos.sh

chaos-proof: ## the same with each of five planted defects: does the run notice?
	@deploy/setup.sh --tests
	@SEED='$(SEED)' MINUTES='$(MINUTES)' RATE='$(RATE)' EMBEDDED='$(EMBEDDED)' deploy/checks/chaos.sh --proof

bench: ## release build, then measure everything beside its limit; ONLY=route runs one part
	@deploy/setup.sh
	@deploy/checks/bench.sh $(ONLY)

build: ## build the binary (target/debug/tailwater)
	@deploy/setup.sh
	$(BUILD)

fmt: ## format the code
	cargo fmt --all

lint: ## clippy over everything, warnings are errors
	cargo clippy --locked --workspace --all-targets -- -D warnings

fuzz: ## throw inputs at every reader of foreign bytes; MINUTES=5 for each, TARGET=part of a name for some
	@deploy/setup.sh
	@deploy/checks/fuzz.sh $$(($(or $(MINUTES),5) * 60)) '$(TARGET)'

docs-check: ## are the pages true: links, error codes, generated reference
	@deploy/checks/docs.sh

chart: ## lint and render the Helm chart with the real helm
	@deploy/setup.sh --tests
	@deploy/checks/chart.sh

deny: ## licences, sources and the direction of dependencies
	@deploy/setup.sh --tests
	@deploy/checks/deny.sh

clean: ## remove what was built (the cache in ~/.cache/tailwater stays)
	cargo clean
