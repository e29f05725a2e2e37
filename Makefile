# `make demo` and `make test` do everything on a fresh machine that has Python 3.11+ and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test quick test-data test-all test-lowest test-newest lint types format docs course bench gallery dist clean

demo: .venv/installed
	$(BIN)/zeuxis demo

# Everything that is quick, without a data directory: tests that want real images are skipped by name.
test: .venv/installed
	@$(MAKE) --no-print-directory -j 3 lint types quick

quick: .venv/installed
	ZEUXIS_DATA= $(BIN)/pytest -n auto --dist worksteal -m "not slow"

# The tests that want real images: ZEUXIS_DATA names the folder that holds them.
test-data: .venv/installed
	$(BIN)/pytest -n auto --dist worksteal -m data

# Everything, each test once.
test-all: test
	$(BIN)/pytest -n auto --dist worksteal -m "slow or data"

# The quick tests with the lowest, or the newest, versions of the dependencies that pyproject.toml allows.
test-lowest test-newest: test-%:
	PYTHON=$(PYTHON) .ci/versions $*

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: .venv/installed
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# A step of the installation, $(call step,NAME,COMMAND): one line, and what the command printed if it fails.
LOG := .venv/install.log
step = @echo '$(1)'; $(2) >>$(LOG) 2>&1 || { cat $(LOG) >&2; echo '$(1): failed; all of the above is in $(LOG)' >&2; exit 1; }
PIP := $(BIN)/pip install --disable-pip-version-check --progress-bar off -c constraints.txt

# PyTorch first and by itself: the constraints pin it, and nothing else may choose another build.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Zeuxis needs Python 3.11 or newer; set PYTHON=...")'
	@mkdir -p .venv && : >$(LOG)
	$(call step,Making the environment,$(PYTHON) -m venv .venv)
	$(call step,Installing PyTorch (some minutes),$(PIP) torch)
	$(call step,Installing Zeuxis and its tools,$(PIP) -e '.[dev]')
	@touch $@

# A wheel and a source archive, in dist/.
dist: .venv/installed
	$(PIP) --quiet build
	$(BIN)/python -m build --outdir dist .

# Writes the pages that come from the code, then the site: docs/_site/index.html.
docs: .venv/installed
	$(BIN)/python docs/make_pages.py
	$(BIN)/sphinx-build --fail-on-warning --keep-going -q -b html docs docs/_site
	@echo docs/_site/index.html

# Executes the six notebooks of the course, some minutes, and writes them with their output.
course: .venv/installed
	$(BIN)/python docs/make_course.py

# Training speed beside Keras, plain PyTorch, pythae and JAX, each in an environment of its own: benchmarks/results.json.
bench: .venv/installed
	$(BIN)/python -m benchmarks

# Trains what the gallery lacks at the lowest priority, and writes the pages of what has ended.
gallery: .venv/installed
	$(BIN)/python -m benchmarks.documents.gallery --queue

clean:
	rm -rf .venv .venv-lowest .venv-newest demo .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info
