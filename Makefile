# Every command sets up what it needs: Python 3.11+, pip, git and make are enough.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready

.PHONY: setup demo demo-postgres test test-full lint types laws docs reference bench sync ci clean

setup: $(STAMP)

$(STAMP): requirements/dev.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing what perdure and its tests need (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

demo: $(STAMP)  ## The main job on an embedded file: import, search, accounts, a kill in mid-write, nothing lost
	@$(BIN)/perdure demo $(if $(INPUT),--input "$(INPUT)")

demo-postgres: $(STAMP)  ## The same on a real PostgreSQL, from pip
	@$(BIN)/python -m perdure.testing.postgres --run $(BIN)/perdure demo $(if $(INPUT),--input "$(INPUT)")

test: $(STAMP)  ## The fast suite: four drivers, a real PostgreSQL
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not full"

test-full: $(STAMP)  ## Everything, with the long fault batteries and hosts' own tests (from the network)
	@$(BIN)/python -m pytest -n 2 --dist worksteal
	@$(BIN)/python tests/hosts/langgraph_store.py

lint: $(STAMP)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports

types: $(STAMP)
	@$(BIN)/pyright
	@$(BIN)/mypy

laws: $(STAMP)
	@$(BIN)/python tools/generate_sync.py --check
	@$(BIN)/python -m pytest tests/laws tests/sql tests/schema

docs: $(STAMP)
	@$(BIN)/python -m pytest tests/docs

reference: $(STAMP)  ## Write docs/reference.md anew
	@$(BIN)/python tools/generate_reference.py

sync: $(STAMP)  ## Write the blocking twins anew
	@$(BIN)/python tools/generate_sync.py

bench: .venv-bench/.ready  ## perdure, the raw limit and the peers, interleaved in one run (ARGS="--rows P1,P3 --quick")
	@.venv-bench/bin/python -m bench $(ARGS)

.venv-bench/.ready: requirements/bench.lock pyproject.toml
	@test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	@echo "*" > .venv-bench/.gitignore
	@echo "Installing the libraries that perdure is compared with (once) ..."
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/bench.lock
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

ci: lint types laws docs test

clean:
	@rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
