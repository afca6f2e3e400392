# `make demo` and `make test` need nothing but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install engines demo up test test-fast lint picture clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,serve,dev]'
	touch $@

demo: install
	$(BIN)/llmops demo

engines: install
	$(BIN)/llmops engines install $(ENGINE)

up: install
	$(BIN)/llmops up

test: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-fast: install
	$(BIN)/python -m pytest --fast --numprocesses 2 --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/pyrefly check --output-format min-text

picture: install
	$(BIN)/python docs/house.py

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .grimp_cache
