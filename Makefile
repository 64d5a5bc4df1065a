# Everything a developer types. `make` alone prints the list.

PYTHON ?= python3
UV_VERSION := 0.13.8
LLAMA_VERSION := $(shell sed -n 's/^llama-cpp-python==\([0-9.]*\).*/\1/p' requirements.lock)
SEEDS ?= 200
ARGS ?=

BIN := .venv/bin
STAMP := .venv/.setup-done
UV := $(BIN)/uv
# Tried without the network first: what this machine has built or downloaded once is not fetched or compiled again.
INSTALL := $(UV) pip install --python $(BIN)/python
# A slow mirror is no reason to give up.
export UV_HTTP_TIMEOUT ?= 180

.DEFAULT_GOAL := help
.PHONY: help setup demo up test check simulate conformance bench tour format lock clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## Make .venv and install everything (needs python3 >= 3.11 and a C++ compiler)

demo: $(STAMP) ## Start a herd, pay for a prompt, watch it answered, stop
	$(BIN)/herder demo $(ARGS)

up: $(STAMP) ## Run the whole herd on this machine, embedded Redis included, until Ctrl-C
	$(BIN)/herder up $(ARGS)

test: $(STAMP) ## The whole test suite (ARGS="-k name" for a part)
	$(BIN)/python -m pytest -q -n auto --dist loadfile $(ARGS)

check: $(STAMP) ## Lint, format, types and tidiness
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy herder worker client tests tools benchmarks examples
	$(BIN)/python -m pytest -q tests/test_tidy.py

simulate: $(STAMP) ## Run the herd under a simulated clock with faults (SEEDS=200)
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

conformance: $(STAMP) ## Try the clients that people have (openai, lamini, …) against a herd (ARGS=openai for one)
	$(BIN)/python -m tests.conformance $(ARGS)

bench: $(STAMP) ## Measure everything beside its peer (long)
	$(BIN)/python -m benchmarks --results benchmarks/results $(ARGS)

tour: $(STAMP) ## Print the eight places a prompt passes, with file and line
	@$(BIN)/python tools/tour.py

format: $(STAMP) ## Rewrite the code the way `make check` wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(STAMP) ## Resolve requirements.lock afresh from pyproject.toml (ARGS=--upgrade for newer versions)
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --extra all --extra dev $(ARGS) pyproject.toml --output-file requirements.lock

clean: ## Remove .venv and every cache
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(STAMP): pyproject.toml requirements.lock Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or later is needed (make setup PYTHON=python3.12)"; exit 1; }
	@command -v c++ g++ clang++ >/dev/null \
		|| { echo "a C++ compiler is needed (Debian: apt-get install build-essential)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(UV) --version 2>/dev/null | grep -qF "uv $(UV_VERSION) " \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
	@$(BIN)/python -c 'from importlib.metadata import version as v; assert v("llama-cpp-python") == "$(LLAMA_VERSION)"' 2>/dev/null \
		|| echo "llama-cpp-python compiles from source: about 7 minutes on two cores, once (not again where uv has kept it)."
	@$(INSTALL) --offline --quiet --require-hashes --requirement requirements.lock 2>/dev/null \
		|| $(INSTALL) --require-hashes --requirement requirements.lock
	@$(INSTALL) --quiet --no-deps --editable .
	@touch $@
