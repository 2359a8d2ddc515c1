# `make` lists what there is. Every target makes its own environment in .venv first.

PYTHON ?= python3
BIN := .venv/bin
# Written last, so that an installation that broke off is begun again.
INSTALLED := .venv/.installed

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help venv demo test test-slow lint docs wheel audit reliability format clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{printf "make %-10s %s\n", $$1, $$2}'

venv: $(INSTALLED) ## make the virtual environment .venv and install crossvox with its tools

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "crossvox needs Python 3.10 or newer: make venv PYTHON=python3.11")'
	@echo "Installing crossvox into .venv (minutes, once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: venv ## train, predict, score and draw on synthetic scans, into demo/
	$(BIN)/crossvox demo --out demo

# One thread a process: two of them on two cores would otherwise fight for both.
test test-slow: export OMP_NUM_THREADS = 1

test: venv ## run the tests
	$(BIN)/python -m pytest -n 2

test-slow: venv ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow

lint: venv ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The notice that it switches off is about the future of MkDocs. No --quiet: it hides warnings from --strict.
docs: export NO_MKDOCS_2_WARNING = 1

docs: venv ## build the documentation into build/site; any warning fails
	$(BIN)/mkdocs build --strict

wheel: venv ## build the wheel into dist/; tests/packaging/test_wheel.py runs the demo from one
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

audit: venv ## look the pinned versions up among known vulnerabilities (needs the network)
	@test -x build/audit/bin/pip-audit || { $(PYTHON) -m venv build/audit && build/audit/bin/pip install --quiet pip-audit; }
	build/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

reliability: venv ## measure docs/reliability.md anew where it is not measured yet (hours)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,mutation]'
	$(BIN)/python benchmarks/reliability --page docs/reliability.md

format: venv ## bring the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove caches and builds (.venv and results stay)
	rm -rf build dist mutants mutants.log .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .coverage*
	find src tests -name __pycache__ -type d -exec rm -rf {} +
