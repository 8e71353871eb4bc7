# Everything a developer does, each target setting up what it needs. PYTHON picks the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.telpher-installed
CONFIG ?=

# For `make torture`: which programme, how much of it, from which seed.
NAME ?=
SIZE ?=
SEED ?= 1

.PHONY: help setup run demo test lint check torture-tools torture bench docs constraints clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## create .venv with Telpher and its development tools

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Telpher needs Python 3.11 or newer; set PYTHON=python3.12, say."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

run: setup  ## run the daemon in the foreground (CONFIG=FILE for a configuration)
	$(BIN)/telpher serve $(if $(CONFIG),--config $(CONFIG))

demo: setup  ## publish, kill, replay, consume and verify, on real input
	$(BIN)/python examples/demo.py

test: setup  ## run the tests
	$(BIN)/python -m pytest

lint: setup  ## ruff, mypy --strict, bandit, and pip-audit where it can ask
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive client broker storage
	$(BIN)/python .ci/audit

# What not every machine has: who lacks it is told by the programme that is skipped for it.
torture-tools: setup
	-@test -e $(VENV)/.torture-tools || PIP_CONSTRAINT=constraints.txt \
		$(BIN)/pip install --quiet --disable-pip-version-check -e '.[torture]'
	@touch $(VENV)/.torture-tools

check: lint test torture-tools  ## lint, tests, and the short form of everything that tries the guarantees
	$(BIN)/python -m tests.torture --short

torture: torture-tools  ## try the guarantees at length (hours); NAME=kills SEED=7 SIZE=50 for one alone
	$(BIN)/python -m tests.torture $(NAME) --seed $(SEED) $(if $(SIZE),--size $(SIZE))

bench: setup  ## measure everything and write docs/benchmarks.md (half an hour; see python -m bench --help)
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check -e '.[bench,bench-peers]'
	$(BIN)/python -m bench all

docs: setup  ## regenerate the generated parts of docs/
	$(BIN)/python -m docs.generate

constraints: setup  ## pin what is installed now
	@(echo "# Versions that the tests pass with; names and versions only. Refresh: make constraints."; \
	  $(BIN)/pip freeze --exclude-editable) > constraints.txt

clean:  ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
