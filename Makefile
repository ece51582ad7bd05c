# Traitmesh. `make` lists what can be made.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
UV_VERSION := 0.13.9
UV := .envs/uv/bin/uv
RUN := .venv/bin/python
CONNECTORS := $(patsubst connectors/%/pyproject.toml,%,$(wildcard connectors/*/pyproject.toml))
LOCKS := services dev dbt notebook bench

export PYTHONPATH := $(CURDIR):$(CURDIR)/gen
# A wheel that finds places for sockets warns where a machine has no session folder; it finds another by itself.
# Compiled once, every process starts in half the time.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONWARNINGS := ignore:XDG_RUNTIME_DIR is not set
export PATH := $(CURDIR)/.venv/bin:$(PATH)

##@ Run
.PHONY: demo up stop status logs
demo: setup ## Set up everything and run the whole journey with the demo company Tusk
	@$(RUN) -m examples.tusk.demo

up: setup ## Start PostgreSQL, Temporal with its UI, and the services
	@$(RUN) -m deploy.local up

stop: ## Stop all of them; nothing is lost
	@$(RUN) -m deploy.local stop

status: ## Show what runs
	@$(RUN) -m deploy.local status

logs: ## Show the logs as they are written (NAME=gateway for one)
	@$(RUN) -m deploy.local logs --follow $(NAME)

##@ Work on it
.PHONY: test test-cluster lint format gen bench lock clean
test: setup ## Run all tests (ARGS="-k ledger" for some)
	@TRAITMESH_TEMPORAL_BINARY=$$($(RUN) -m deploy.local.temporal) $(RUN) -m pytest \
	  --numprocesses 2 --dist loadgroup --no-loadscope-reorder $(ARGS)

test-cluster: setup ## Prove the chart on the cluster of KUBECONFIG (VALUES=file: where its images are)
	@CLUSTER_VALUES=$(VALUES) $(RUN) -m pytest deploy/tests/on_cluster/proof.py

lint: setup ## Check style, types and the contract
	@ruff format --check .
	ruff check .
	mypy libs services connectors clients examples deploy tests bench proto
	buf lint gen/traitmesh_proto/descriptors.binpb --config proto/buf.yaml

format: setup ## Format the code and mend what can be mended
	@ruff format . && ruff check --fix .

gen: gen/.ready ## Make stubs, types and descriptors from proto/

bench: setup .envs/bench/.ready ## Measure, with the peers in the same run; results in bench/results
	@$(RUN) -m bench

lock: $(UV) ## Pin the newest versions, with hashes
	@for name in $(LOCKS); do
	  $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --custom-compile-command "make lock" requirements/$$name.in --output-file requirements/$$name.lock
	done
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" --override <(echo "traitmesh-connector @ ./libs/connector") \
	  --no-emit-package traitmesh-connector $(CONNECTORS:%=connectors/%/pyproject.toml) --output-file requirements/connectors.lock

clean: stop ## Remove all that was made here: environments, generated code, state
	@rm -rf .venv .envs gen .traitmesh .pytest_cache .mypy_cache .ruff_cache

##@ Set up (done by the others when needed)
.PHONY: setup temporal help
setup: .venv/.ready gen/.ready .envs/dbt/.ready .envs/notebook/.ready $(CONNECTORS:%=.envs/connectors/%/.ready) temporal

temporal: .venv/.ready
	@$(RUN) -m deploy.local.temporal >/dev/null

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
	  echo "Traitmesh needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python3"; exit 1; }
	[ "$$(uname -sm)" = "Linux x86_64" ] || {
	  echo "Traitmesh's local stack needs Linux on x86-64 (this is $$(uname -sm)): use a Linux machine, VM or container"; exit 1; }
	echo "Setting up, once: tools ..."
	$(PYTHON) -m venv .envs/uv
	.envs/uv/bin/pip install --quiet uv==$(UV_VERSION)

.venv/.ready: requirements/dev.lock clients/python/pyproject.toml libs/connector/pyproject.toml | $(UV)
	@echo "Setting up, once: services ..."
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	$(UV) pip sync --quiet --compile-bytecode --python .venv/bin/python --require-hashes requirements/dev.lock
	$(UV) pip install --quiet --python .venv/bin/python --no-deps -e clients/python -e libs/connector
	touch $@

gen/.ready: $(shell find proto -type f) .venv/.ready
	@$(RUN) proto/generate.py
	touch $@

.envs/dbt/.ready: requirements/dbt.lock | $(UV)
	@echo "Setting up, once: dbt ..."
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .envs/dbt
	$(UV) pip sync --quiet --compile-bytecode --python .envs/dbt/bin/python --require-hashes requirements/dbt.lock
	touch $@

.envs/notebook/.ready: requirements/notebook.lock clients/python/pyproject.toml | $(UV)
	@echo "Setting up, once: notebooks ..."
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .envs/notebook
	$(UV) pip sync --quiet --compile-bytecode --python .envs/notebook/bin/python --require-hashes requirements/notebook.lock
	$(UV) pip install --quiet --python .envs/notebook/bin/python --no-deps -e clients/python
	touch $@

.envs/connectors/%/.ready: connectors/%/pyproject.toml libs/connector/pyproject.toml requirements/connectors.lock | $(UV)
	@echo "Setting up, once: connector $* ..."
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .envs/connectors/$*
	$(UV) pip install --quiet --compile-bytecode --python .envs/connectors/$*/bin/python --constraint requirements/connectors.lock \
	  -e libs/connector -e connectors/$*
	touch $@

.envs/bench/.ready: requirements/bench.lock | $(UV)
	@echo "Setting up, once: peers to measure against ..."
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .envs/bench
	$(UV) pip sync --quiet --compile-bytecode --python .envs/bench/bin/python --require-hashes requirements/bench.lock
	touch $@

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' \
	  $(MAKEFILE_LIST)
