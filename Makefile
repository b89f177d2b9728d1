# Everything lives in .venv in this checkout; a target installs what it needs first.

PYTHON           ?= python3
HTTP_PORT        ?= 8080
GRPC_PORT        ?= 8500
MODEL_REPOSITORY ?= model_repository
RECIPE           ?= digits
TESTS            ?= tests
PARALLEL         ?= -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
IMAGES           ?= gateway modelserver training
IMAGE_OPTIONS    ?=
BENCH            ?=
# The shell reads these from its environment, whatever characters a path has.
export MODEL_REPOSITORY RECIPE MODEL_SERVER PEER_REST
CONTAINER_TOOL   ?= $(firstword $(foreach tool,docker podman buildah,$(if $(shell command -v $(tool)),$(tool))) docker)

BIN       := .venv/bin
INSTALLED := .venv/.installed
UP        := $(BIN)/sluice up --model-repository "$$MODEL_REPOSITORY" --http-port $(HTTP_PORT) --grpc-port $(GRPC_PORT)

.DEFAULT_GOAL := help
.PHONY: help install serve train test test-marked test-clients test-root test-containers test-load test-recipes test-images test-remote lint audit bench bench-peers bench-modelserver bench-warmup bench-access bench-explain bench-graphs bench-rollout protos locks images clean

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 26
	@echo
	@echo "  HTTP_PORT=$(HTTP_PORT) GRPC_PORT=$(GRPC_PORT) MODEL_REPOSITORY=$(MODEL_REPOSITORY) RECIPE=$(RECIPE)"

install: $(INSTALLED)  ## Install everything into .venv

serve: $(INSTALLED)  ## Serve the model repository; train digits first if it is empty
	@$(UP) --check
	@ls -d "$$MODEL_REPOSITORY"/*/[0-9]* >/dev/null 2>&1 || $(BIN)/sluice train digits --model-repository "$$MODEL_REPOSITORY"
	@exec $(UP)

train: $(INSTALLED)  ## Train RECIPE and publish it into the model repository
	@$(BIN)/sluice train "$$RECIPE" --model-repository "$$MODEL_REPOSITORY"

test: $(INSTALLED)  ## Run the tests that need no root and no network
	$(BIN)/python -m pytest $(TESTS) -m "not (slow or load or clients or root)" $(PARALLEL)

test-marked: $(INSTALLED)  ## Run the tests that take minutes, or install other projects' clients
	$(BIN)/python -m pytest $(TESTS) -m "slow" $(PARALLEL)
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target test-containers test-clients test-root

test-clients: $(INSTALLED)
	$(BIN)/python -m pytest $(TESTS) -m "clients and not (slow or root)" $(PARALLEL) -n 2

test-root: $(INSTALLED)
	$(BIN)/python -m pytest $(TESTS) -m "root and not (slow or containers)"

test-containers: $(INSTALLED)
	$(BIN)/python -m pytest $(TESTS:tests=tests/delivery) -m "containers and not (slow or load)"

test-load: $(INSTALLED)  ## Run the tests under full load, for which the machine must be idle
	$(BIN)/python -m pytest tests/system -m "load" -s

test-recipes: $(INSTALLED)  ## Ask the recipes by their graphs for which CI has no time
	$(BIN)/python -m pytest tests/training -m "load"

test-images: $(INSTALLED)  ## Build and run the images that CI has no time for: large ones, twice from nothing, and for arm64
	$(BIN)/python -m pytest tests/delivery -m "load" -s

test-remote: $(INSTALLED)  ## Ask the stack at SLUICE_URL (and SLUICE_GRPC) whether it works
	@test -n "$$SLUICE_URL" || { echo "Say which: SLUICE_URL=https://HOST make test-remote"; exit 1; }
	$(BIN)/python -m pytest tests/remote

lint: $(INSTALLED)  ## Check style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

audit: $(INSTALLED)  ## Ask whether a pinned package is known to be unsafe, where that can be asked
	@.ci/audit

bench: $(INSTALLED)  ## Measure the gateway beside hello worlds, TensorFlow alone and MODEL_SERVER=, PEER_REST=
	$(BIN)/python benchmarks/gateway.py $(BENCH)

bench-peers: $(INSTALLED)  ## The same beside other Python servers too, and write docs/benchmarks.md
	$(BIN)/python benchmarks/gateway.py --peers --docs $(BENCH)

bench-modelserver: $(INSTALLED)  ## Measure the embedded model server beside TensorFlow alone
	$(BIN)/python benchmarks/modelserver.py

bench-warmup: $(INSTALLED)  ## Measure the first second of a version, warmed up with captured requests and not; write docs/benchmarks.md
	$(BIN)/python benchmarks/warmup.py --docs

bench-access: $(INSTALLED)  ## Measure what keys, limits, the log and captures cost the gateway; write docs/benchmarks.md
	$(BIN)/python benchmarks/access.py --docs $(BENCH)

bench-explain: $(INSTALLED)  ## Measure explanations and how well strange pictures are told; write docs/explain.md, docs/novelty.md
	$(BIN)/python benchmarks/explain.py --docs
	$(BIN)/python benchmarks/novelty.py --docs $(BENCH)

bench-graphs: $(INSTALLED)  ## Measure the graphs of a version beside the unfolded one; write docs/graphs.md
	$(BIN)/python benchmarks/card.py --docs
	$(BIN)/python benchmarks/graphs.py --docs $(BENCH)

bench-rollout: $(INSTALLED)  ## Roll sabotaged and sound versions out, and count which are stopped; write docs/operations.md
	$(BIN)/python benchmarks/rollout.py --docs $(BENCH)

protos: $(INSTALLED)  ## Generate the message classes from sluice/wire/protos/*.proto
	$(BIN)/python -m sluice.wire.protos.generate

locks: $(INSTALLED)  ## Write deploy/locks: what images install, by hash
	@deploy/locks/write

images:  ## Build the container images of IMAGES, as sluice-gateway and so on
	@version=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml); \
	for image in $(IMAGES); do \
	  $(CONTAINER_TOOL) build $(if $(filter docker,$(CONTAINER_TOOL)),,--layers --format docker) $(IMAGE_OPTIONS) \
	    --build-arg VERSION=$$version --target $$image --tag sluice-$$image:$$version . || exit; \
	done

clean:  ## Remove what was installed and cached; published models stay
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "Sluice needs Python 3.11, 3.12 or 3.13; $(PYTHON) is $$($(PYTHON) -V 2>/dev/null || echo not found). Try: make $(or $(MAKECMDGOALS),install) PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing everything into .venv, which takes some minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[gateway,otel,modelserver,training,dev]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt gunicorn_h1c 2>/dev/null || \
	  echo "No C compiler, no gunicorn_h1c: HTTP is parsed in Python, which takes 20 µs longer a request"
	@touch $@
