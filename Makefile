# Each target makes .venv and installs what it needs, once. PYTHON can name another Python of 3.11 or newer.
PYTHON ?= python3
BIN = .venv/bin
DEMO = runs/digits-layermatch-0

# The oldest torch and torchvision that pyproject.toml allows, as torch==A torchvision==B.
LOWEST = $(shell sed -n 's/^ *"\(torch\(vision\)\{0,1\}\)>=\([^"]*\)".*/\1==\3/p' pyproject.toml)
INSTALLED = $(shell $(BIN)/python -m pip freeze | grep -E '^(torch|torchvision)==' | sort)

.PHONY: install demo test test-slow test-lowest lint clean

install: .venv/installed

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

# The README's main command on real data that comes with scikit-learn: 10 labels, 1,432 unlabeled images.
demo: install
	$(BIN)/fewlabels train digits --labels-per-class 1 --out $(DEMO)
	@echo "open $(DEMO)/report.html"

# The suite, the files of tests shared out over two processes; then the main command in small, in a folder of its own.
# PYTEST_OPTIONS="--cov --cov-report=term" also measures coverage, and -m 'not slow' compiles machine code: both take longer.
PYTEST_OPTIONS =
test: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(PYTEST_OPTIONS)
	rm -rf .test-run
	$(BIN)/fewlabels train digits --labels-per-class 4 --budget quick --out .test-run
	test -s .test-run/report.html -a -s .test-run/predictions.parquet -a -s .test-run/summary.json
	rm -rf .test-run

test-slow: install
	$(BIN)/python -m pytest -m slow

# What depends on torch most, on the oldest that is allowed, in an environment of its own: what compiles, exports, loads,
# saves and resumes. Where that one is installed already, the suite has tested it.
test-lowest: install
	@if test "$(INSTALLED)" = "$(LOWEST)"; then echo "$(LOWEST): the oldest that is allowed is the one that is installed"; \
	else $(MAKE) .venv-lowest/installed && \
	.venv-lowest/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "versions and not slow"; fi

.venv-lowest/installed: pyproject.toml Makefile
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --upgrade pip
	.venv-lowest/bin/python -m pip install --quiet $(LOWEST) --editable ".[dev]"
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean:
	rm -rf .venv .venv-lowest runs .test-run .pytest_cache .ruff_cache .hypothesis .coverage
