# Each target makes .venv and installs what it needs, once. PYTHON can name another Python of 3.11 or newer.
PYTHON ?= python3
BIN = .venv/bin
DEMO = runs/digits-layermatch-0

.PHONY: install demo test test-slow lint clean

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

# The suite with coverage, the files of tests shared out over two processes; then the main command in small, in a folder
# of its own.
test: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --cov --cov-report=term
	rm -rf .test-run
	$(BIN)/fewlabels train digits --labels-per-class 4 --budget quick --out .test-run
	test -s .test-run/report.html -a -s .test-run/predictions.parquet -a -s .test-run/summary.json
	rm -rf .test-run

test-slow: install
	$(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean:
	rm -rf .venv runs .test-run .pytest_cache .ruff_cache .hypothesis .coverage
