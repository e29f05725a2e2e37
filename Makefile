# `make demo` and `make test` do everything on a fresh machine that has Python 3.11+ and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint types format docs bench gallery clean

demo: .venv/installed
	$(BIN)/zeuxis demo

test: .venv/installed lint types
	$(BIN)/pytest -n auto -m "not slow"

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: .venv/installed
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# PyTorch first and by itself: the constraints pin it, and nothing else may choose another build.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Zeuxis needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# Writes the pages that come from the code, then the site: docs/_site/index.html.
docs: .venv/installed
	$(BIN)/python docs/make_pages.py
	$(BIN)/sphinx-build --fail-on-warning --keep-going -q -b html docs docs/_site
	@echo docs/_site/index.html

# Training speed beside Keras, plain PyTorch and pythae, each in an environment of its own: benchmarks/results.json.
bench: .venv/installed
	$(BIN)/python -m benchmarks

# Trains what the gallery lacks at the lowest priority, and writes the pages of what has ended.
gallery: .venv/installed
	$(BIN)/python -m benchmarks.gallery --queue

clean:
	rm -rf .venv demo .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info
