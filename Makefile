# Every target does its own set-up: a virtual environment in .venv, made anew when pyproject.toml changes. Another Python
# takes an environment of its own: make test PYTHON=python3.13 VENV=.venv313
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The suite starts a thousand interpreters: none should compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test soak lint bench docs dist clean

demo: $(READY)
	@$(BIN)/simopen demo

test: $(READY)
	$(BIN)/python -m pytest -n 6 --dist worksteal

# What must keep holding, in numbers that the suite has no time for: takes some twenty minutes.
soak: $(READY)
	$(BIN)/python -m tests.soak $(SOAK)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m benchmarks $(BENCH)

# The pages of docs/, in build/docs; a warning is an error.
docs: $(VENV)/.ready-docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html -d build/doctrees docs build/docs
	@echo "read build/docs/index.html"

$(VENV)/.ready-docs: $(READY)
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[docs]'
	@touch $@

# The archives for a package index, and whether they and their page there are whole.
dist: $(READY)
	rm -rf dist
	$(BIN)/python -m pip install --quiet 'build>=1.2' 'readme-renderer[md]>=44' 'twine>=6'
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python -m tests.archives dist

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "simopen needs Python 3.11 or later; say make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv .venv[0-9]* build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
