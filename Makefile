# `make demo` and `make test` do everything, from an empty folder on: they build .venv first.
PYTHON ?= python3
PIP_ARGS ?=
WORKERS ?= 2
BIN := .venv/bin
TABLES := $(sort $(wildcard experiments/table*.py))
FIGURES := $(sort $(wildcard experiments/figure*.py))

.PHONY: setup demo test lint tables clean

setup: .venv/.installed

.venv/.installed: requirements.lock setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	$(BIN)/graphfm demo --out demo

test: setup
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

# make table-0 runs (or completes) experiments/table0_*.py; make tables rebuilds all tables and figures from their records
table-%: setup
	$(BIN)/python experiments/table$*_*.py

tables: setup
	for table in $(TABLES); do $(BIN)/python $$table --readme || exit 1; done
	for figure in $(FIGURES); do $(BIN)/python $$figure || exit 1; done

clean:
	rm -rf .venv build *.egg-info demo
