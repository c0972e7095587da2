# Two commands are enough on a fresh machine: `make quickstart` and `make test`.
# The versions that are known to work together are in constraints.txt.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: quickstart test lint check bench models

quickstart: $(VENV)/.installed  ## install, compare the two built-in models, print the run's path
	$(BIN)/harness run configs/quickstart.yaml

test: $(VENV)/.installed-dev  ## every test; needs no network after the installation
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

bench: $(VENV)/.installed-dev  ## ratios of interleaved pairs, see benchmarks/README.md
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest benchmarks --benchmark-only -p no:xdist

models: $(VENV)/.installed-dev  ## train the built-in models again
	$(BIN)/python tools/train_builtin.py pico
	$(BIN)/python tools/train_builtin.py nano

$(VENV)/pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check 'pip>=25.1'
	touch $@

$(VENV)/.installed: $(VENV)/pip pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[charts]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --group dev
	touch $@
