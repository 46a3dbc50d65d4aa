# One command per habit. Everything lives in .venv; `make clean` removes it and every build product.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KEEP ?=

.PHONY: setup demo browser test check bench clean

setup: $(VENV)/.installed

# netifaces, which the engine needs, has no wheel: a C compiler must be there before pip runs.
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

test: check browser
	$(BIN)/pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/pip install -q -c constraints.txt -e ".[rfi,dev,bench]"
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/rfi.py --seeds 0 1 2
	$(BIN)/python benchmarks/archive.py
	$(BIN)/python benchmarks/web.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
