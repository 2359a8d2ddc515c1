# `make` lists the targets. Every target first makes an environment in .venv if there is none.

PYTHON ?= python3
BIN := .venv/bin
# Written last: an interrupted installation starts again.
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

demo: venv ## train, predict, score and draw on synthetic scans; results in demo/
	$(BIN)/crossvox demo --out demo

# One thread per process: two processes would otherwise compete for the cores.
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

# This silences a notice about the future of MkDocs. --quiet would hide warnings from --strict.
docs: export NO_MKDOCS_2_WARNING = 1

docs: venv ## build the documentation into build/site; any warning fails
	$(BIN)/mkdocs build --strict

wheel: venv ## build the wheel into dist/; tests/packaging/test_wheel.py runs the demo from one
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

audit: venv ## list known vulnerabilities of the pinned versions (needs the network)
	@test -x build/audit/bin/pip-audit || { $(PYTHON) -m venv build/audit && build/audit/bin/pip install --quiet pip-audit; }
	build/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

reliability: venv ## measure what docs/explanation/reliability.md shows; takes hours, can be resumed
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,mutation]'
	$(BIN)/python benchmarks/reliability --page docs/explanation/reliability.md

format: venv ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove caches and builds (.venv and results stay)
	rm -rf build dist mutants mutants.log .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .coverage*
	find src tests -name __pycache__ -type d -exec rm -rf {} +
