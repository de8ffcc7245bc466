# make run    serve the app on http://127.0.0.1:7860
# make test   run every test but those that take minutes by nature
# make test-fast   the tests of the library that take no time, for use between two changes
# make test-all    every test
# make check  lint, format, import layers and types
# make docs   the documents as a site, in build/site
# make benchmark-table   recompute every figure of assets/benchmark from its predictions, and the tables of
#                        docs/results.md and README.md
# make bench  how fast it is: what a user would write and ours, side by side, as a table and in speed.json (4 minutes;
#             on a machine that does nothing else). Options: make bench BENCH="--quick --only photo batch"
# make screenshots       photograph the app: README's picture, and every tab into screenshots/
# make fuzz COUNT=200000, attack, load REQUESTS=1000, soak MINUTES=30, faults KILLS=20   what the app and the commands
#                        bear; each takes minutes to hours and files its figures in tests/reliability/figures
# make reliability-page inputs-page licences   write docs/reliability.md from these figures, docs/inputs.md from the
#                        cases that the tests make, and docs/licences.md
# Each sets up what it needs in .venv, from a Python 3.11 or newer and a package registry.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# So many processes run test files side by side, with a thread each.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

COUNT ?= 200000
REQUESTS ?= 1000
MINUTES ?= 30
KILLS ?= 20
RELIABILITY := PYTHONPATH=.:tests/support:tests/reliability $(BIN)/python tests/reliability

.PHONY: run test test-fast test-all check docs benchmark-table bench screenshots
.PHONY: fuzz attack load soak faults reliability-page inputs-page licences
.DELETE_ON_ERROR:

run: $(VENV)/.requirements
	$(BIN)/python app.py

test: $(VENV)/.browser $(VENV)/.onnxruntime-web
	$(PYTEST) -m "not nightly"

test-fast: $(VENV)/.development
	$(PYTEST) -m "not slow and not browser and not nightly"

test-all: $(VENV)/.browser $(VENV)/.onnxruntime-web $(VENV)/.docs $(VENV)/.scale
	$(PYTEST)

check: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright --pythonpath $(BIN)/python

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

benchmark-table: $(VENV)/.requirements
	$(BIN)/python -m dermadeit benchmark table

bench: $(VENV)/.requirements
	$(BIN)/python -m benchmarks.speed.bench --output speed.json $(BENCH)

screenshots: $(VENV)/.browser
	$(BIN)/python tests/support/take_screenshots.py

fuzz: $(VENV)/.development
	$(RELIABILITY)/fuzz.py --count $(COUNT) --workers $(WORKERS) $(if $(READER),--reader "$(READER)") $(if $(INDEX),--index $(INDEX))

attack: $(VENV)/.development
	$(RELIABILITY)/attack.py

load: $(VENV)/.development
	$(RELIABILITY)/load.py --requests $(REQUESTS)

soak: $(VENV)/.development
	$(RELIABILITY)/soak.py --minutes $(MINUTES)

faults: $(VENV)/.development
	$(RELIABILITY)/faults.py --kills $(KILLS)

reliability-page inputs-page: $(VENV)/.development
	$(RELIABILITY)/$(subst -,_,$@).py

licences: $(VENV)/.development
	$(RELIABILITY)/licences.py

$(VENV)/.requirements: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "DermaDeiT needs Python 3.11 or newer; this is %d.%d. Name another one: make PYTHON=python3.12" % sys.version_info[:2] or 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.development: $(VENV)/.requirements pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# What only the site, and only archives of photos need.
$(VENV)/.docs $(VENV)/.scale: $(VENV)/.%: $(VENV)/.development
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

# The browser that the tests drive: the machine's own, else Debian's (as root), else Playwright's. Without any of them
# the tests that need one are skipped, with the reason.
$(VENV)/.browser: $(VENV)/.development
	@if command -v chromium || command -v chromium-browser || command -v google-chrome; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get; then \
		apt-get update && apt-get install --yes --no-install-recommends chromium; \
	else $(BIN)/playwright install chromium; \
	fi && touch $@ || echo "No browser could be installed: the tests that drive one are skipped."

# What the browser export is tested with. Without npm those tests are skipped, with the reason.
$(VENV)/.onnxruntime-web: $(VENV)/.development dermadeit/publishing/web_export.py
	@version=$$($(BIN)/python -c "from dermadeit.publishing.web_export import RUNTIME_VERSION; print(RUNTIME_VERSION)"); \
	(cd $(VENV) && npm pack --silent "onnxruntime-web@$$version") && touch $@ \
	|| echo "onnxruntime-web could not be fetched: the tests of the browser export are skipped."
