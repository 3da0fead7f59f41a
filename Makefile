# Everything starts here. Needs Linux, Python >= 3.11, make and the package registries; no root.
PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
# Leaves uv and pip, which bootstrapped the environment, in it.
SYNC := $(BIN)/uv sync --frozen --inexact --quiet

# Every process that a test starts would compile what it imports, each time: 10 s for Tiled's server.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo test test-deploy image audit check generate format simulate chaos fuzz clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

$(BIN)/uv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tiled-ingest needs Python >= 3.11; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"

$(VENV)/.installed: $(BIN)/uv pyproject.toml uv.lock
	UV_PROJECT_ENVIRONMENT=$(VENV) $(SYNC) --all-extras --group bench
	@touch $@

install: $(VENV)/.installed  ## the environment, frozen from the lock file

demo: install  ## the main job on real parts, on this machine
	$(BIN)/tiled-ingest demo

test: install  ## the whole test suite, in two processes: much of it waits (JOBS=0: in one)
	$(BIN)/python -m pytest -n $(or $(JOBS),2) --dist worksteal $(PYTEST_ARGS)

$(VENV)/.deploy: $(VENV)/.installed
	UV_PROJECT_ENVIRONMENT=$(VENV) $(SYNC) --all-extras --group deploy
	@touch $@

test-deploy: $(VENV)/.deploy  ## chart, rules, page, compose files, unit, image (IMAGE=no: without it), by tools that can fail and for real
	deploy/packages.sh
	$(BIN)/python -m pytest tests/deploy $(if $(filter no,$(IMAGE)),--ignore=tests/deploy/test_image.py) $(PYTEST_ARGS)
	@[ "$(IMAGE)" != no ] || echo "NOT RUN, because of IMAGE=no: the image's build and run (tests/deploy/test_image.py)"

audit: install  ## known vulnerabilities of what runs beside the service (asks a public database: needs the internet)
	$(BIN)/uv audit --frozen --no-dev

image:  ## the container image, by buildah, podman or docker (NAME=..., BASE=another base, or stand-in)
	deploy/image.sh $(or $(NAME),tiled-ingest:dev) $(BASE)

generate: install  ## what the chart is made of that has its source elsewhere: schema, defaults, dashboard
	$(BIN)/python -m deploy.generate

simulate: install  ## HISTORIES=100000 of the simulation in PROCESSES, resumable; every wrong engine; writes docs/simulation.md
	$(BIN)/python -m tests.simulation.campaign --histories $(or $(HISTORIES),100000) --variants 1000 \
	  --report docs/simulation.md $(if $(PROCESSES),--processes $(PROCESSES))

chaos: simulate  ## the long fault runs: the simulation, kill points one by one, FAULTS=1000 faults on real parts (SEED=, MINUTES=)
	TEST_CHAOS=1 $(BIN)/python -m pytest tests/simulation tests/system --timeout=7200 $(PYTEST_ARGS)
	$(BIN)/python -m tests.chaos --faults $(or $(FAULTS),1000) $(if $(SEED),--seed $(SEED)) \
	  $(if $(MINUTES),--minutes $(MINUTES)) $(if $(AT_ONCE),--at-once $(AT_ONCE)) --storage $(or $(STORAGE),both)

fuzz: install  ## a million mutated messages, guided by coverage
	UV_PROJECT_ENVIRONMENT=$(VENV) $(SYNC) --all-extras --group fuzz
	$(BIN)/python -m tests.fuzz --guided --messages $(or $(MESSAGES),1000000)

bench: install  ## the service beside its peers; writes docs/performance (BENCH_ARGS="--only backlog --repeat 5")
	$(BIN)/python -m tests.bench $(BENCH_ARGS)

check: install  ## format, lint, types, import contracts, links in the docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m deploy.generate --check
	$(BIN)/python -m tests.links README.md CONTRIBUTING.md CHANGELOG.md docs

format: install  ## mend what a tool can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove what the targets made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
