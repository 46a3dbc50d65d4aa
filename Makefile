# One command per habit. Everything lives in .venv; `make clean` removes it and every build product.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KEEP ?=

.PHONY: setup demo browser slurm test test-deploy check bench clean

setup: $(VENV)/.installed

# netifaces and aipy, which the engine and HERA's packages need, have no wheels: compilers must be there before pip runs.
$(VENV)/.installed: pyproject.toml constraints.txt scripts/system-packages.sh
	bash scripts/system-packages.sh
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e ".[rfi,dev]"
	touch $@

demo: setup
	$(BIN)/dlg-ml demo $(if $(KEEP),--keep)

browser:
	bash scripts/browser.sh

slurm:
	bash scripts/slurm.sh

test: check browser slurm
	$(BIN)/pytest -n 2

# Needs a container engine and root. In order, because each test of a stack builds on the one before; says what it skips and why.
test-deploy: setup browser
	$(BIN)/pytest -m deploy -p no:randomly -rs tests/deploy

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/pip install -q -c constraints.txt -e ".[rfi,dev,bench]"
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/rfi.py --seeds 0 1 2
	$(BIN)/python benchmarks/archive.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/graphs.py
	$(BIN)/python benchmarks/web.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
