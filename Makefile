# make demo    classify drawn cells and count a drawn smear, or classify IMAGES=folder
# make test    everything that continuous integration checks
# make quick   the same without the slow tests
# make coverage  which lines the tests run, in htmlcov/, and docs/evaluation/coverage.json
# make docs    the documentation as a web site in site/, with its generated pages made anew

PYTHON ?= python3
BIN := .venv/bin
IMAGES ?=
WORKERS ?= 3
# Some tests wait for others' processes, so that three workers keep two processors busy. A file's
# tests stay on one worker; tests/conftest.py puts the files with slow tests first. What is
# compiled is kept, also where the environment says otherwise: many tests start Python.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: demo test quick run-test run-quick check coverage docs clean

demo: .venv/installed
ifeq ($(IMAGES),)
	$(BIN)/hemascope data draw demo/cells --per-class 5 --force
endif
	$(BIN)/hemascope classify $(or $(IMAGES),demo/cells) \
		--out demo/predictions.csv --report demo/report.html --force
ifeq ($(IMAGES),)
	$(BIN)/hemascope data draw demo/smear --fields 12 --force
	$(BIN)/hemascope count demo/smear --out demo/counts.csv --report demo/count.html --force
endif

# mypy takes one processor for most of a minute, beside which the tests begin.
test quick: .venv/tested
	$(MAKE) --no-print-directory --jobs=2 check run-$@

run-test: .venv/tested
	$(PYTEST)

run-quick: .venv/tested
	$(PYTEST) -n 2 -m "not slow"

check: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

coverage: .venv/tested
	$(PYTEST) --cov --cov-report term --cov-report html --cov-report json:htmlcov/coverage.json
	$(BIN)/python tools/write_coverage.py htmlcov/coverage.json
	$(BIN)/python tools/generate_pages.py

docs: .venv/tested
	$(BIN)/python tools/generate_pages.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.venv/bin/pip:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip

.venv/installed: pyproject.toml | .venv/bin/pip
	$(BIN)/pip install --quiet --editable .
	touch $@

# medmnist asks for torchvision, which it does not import.
.venv/tested: pyproject.toml constraints.txt | .venv/bin/pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[study,cluster,parquet,audit,postgresql]' --group dev --group docs
	$(BIN)/pip install --quiet --no-deps medmnist
	touch $@ .venv/installed

clean:
	rm -rf .venv demo site htmlcov .coverage
