# make run    serve the app on http://127.0.0.1:7860
# make test   run every test
# make check  lint, format and import layers
# make benchmark-table   recompute every figure of assets/benchmark from its predictions, and the tables of
#                        docs/results.md and README.md
# make screenshots       photograph the app: README's picture, and every tab into screenshots/
# Each sets up what it needs in .venv, from a Python 3.11 or newer and a package registry.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test check benchmark-table screenshots
.DELETE_ON_ERROR:

run: $(VENV)/.requirements
	$(BIN)/python app.py

test: $(VENV)/.development
	$(BIN)/python -m pytest

check: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

benchmark-table: $(VENV)/.requirements
	$(BIN)/python -m dermadeit benchmark table

screenshots: $(VENV)/.development
	$(BIN)/python tests/support/take_screenshots.py

$(VENV)/.requirements: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "DermaDeiT needs Python 3.11 or newer; this is %d.%d. Name another one: make PYTHON=python3.12" % sys.version_info[:2] or 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.development: $(VENV)/.requirements pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
