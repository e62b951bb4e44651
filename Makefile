# make demo    the main job: render parts, train, calibrate, evaluate
# make test    lint, type-check, inspect in an environment without torch, tests
# Each builds its own environment in .venv, from constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint light install clean

demo: install
	$(BIN)/draem demo --out demo

test: lint light
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

light: install
	$(BIN)/python tests/light/install.py

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) demo build src/*.egg-info .mypy_cache .ruff_cache .pytest_cache
