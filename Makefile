# Every target sets up what it needs: a fresh machine wants Python 3.11+, pip, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export UV_PYTHON_DOWNLOADS = never
# Tests start some thousand processes: each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

# Tests mostly wait for the processes that they start: one more at once than two cores have.
WORKERS ?= 3

# Azure's storage for tests comes from npm. Where that is missing, they are skipped.
AZURITE := $(if $(shell command -v npm),node_modules/.bin/azurite-blob)

# Debian's packages for tests, which root may install: a browser for the UI's pages, PostgreSQL for a test with
# Airflow's executor, faketime for tests of clocks. Where one is missing, its tests are skipped.
PACKAGES := $(strip $(if $(shell command -v chromium),,chromium fonts-dejavu-core) \
  $(if $(wildcard /usr/lib/postgresql/*/bin/initdb)$(shell command -v initdb),,postgresql) \
  $(if $(shell command -v faketime),,faketime))
APT := $(if $(PACKAGES),$(if $(filter 0,$(shell id -u)),$(shell command -v apt-get)))

.PHONY: help faults load bench bench-quick setup demo test packages screenshots matrix check lint format types layers docs constraints clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.* ## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r target text; do printf '%-12s %s\n' "$$target" "$$text"; done

setup: $(READY) ## the environment in .venv: package, tools, pinned Airflow and Ray

# `pip --python` installs into an environment that has no pip of its own, so that Debian's
# python3 without the python3-venv package is enough.
$(BIN)/uv:
	$(PYTHON) -m venv --without-pip $(VENV)
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check uv

$(READY): pyproject.toml constraints.txt | $(BIN)/uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraints constraints.txt --editable . --group dev
	touch $@

demo: $(READY) ## a workflow through Airflow, with a failure and a resume
	$(BIN)/python example_dags/demo.py

test: $(READY) $(AZURITE) $(if $(APT),packages) ## all that a merge has to pass (WORKERS=4: in four processes)
	$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --durations 10

node_modules/.bin/azurite-blob:
	npm install --no-save --no-package-lock --no-audit --no-fund --loglevel error azurite@3.37.0

# RUNLEVEL=1: no server is started but those of tests.
packages:
	-apt-get update -qq && RUNLEVEL=1 apt-get install -qq -y --no-install-recommends $(PACKAGES)

# The pictures of docs/ui.md, which a test makes.
screenshots: $(READY) ## the pictures of docs/ui.md
	RAYWORKFLOW_SCREENSHOTS=docs/images $(BIN)/python -m pytest tests/airflow/ui/test_pages.py

# A few tests on the other Pythons that this machine has, and on the oldest versions of what we need: noxfile.py.
matrix: $(READY) ## some tests on other Pythons and the oldest versions
	PATH="$(CURDIR)/$(BIN):$$PATH" PYENV_VERSION="$$(pyenv versions --bare 2>/dev/null | paste -sd:)" $(BIN)/nox

# The long form of tests/faults: RUNS seeded runs, about half an hour for 200. RESULTS keeps what is
# done, so that a run that was interrupted goes on.
RUNS ?= 200
RESULTS ?= fault-runs.jsonl
faults: $(READY) ## the fault suite, long form (RUNS=200)
	$(BIN)/python tests/faults/suite.py --runs $(RUNS) --results $(RESULTS)

# The long form of tests/load: some minutes.
load: $(READY) ## large numbers of workflows and tasks, some minutes
	$(BIN)/python -m pytest -s tests/load/load_on_ray.py

check: lint layers types ## lint, layers and types

lint: $(READY) ## format and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

layers: $(READY) ## the rows of imports
	$(BIN)/lint-imports

types: $(READY) ## mypy, strict
	$(BIN)/mypy

format: $(READY) ## repair format and lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The pages, in docs/_build/html; every warning is an error.
docs: $(READY) ## the pages, in docs/_build/html; warnings are errors
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

# Takes about half an hour; WORKS="tiny s3" measures some, and keeps what else was measured.
bench: $(READY) ## all benchmarks, half an hour (WORKS="tiny s3": some)
	$(BIN)/python -m benchmarks.bench $(WORKS)

bench-quick: $(READY) ## their quick form
	$(BIN)/python -m benchmarks.bench --quick $(WORKS)

# No index address gets into the file: it pins versions only.
constraints: $(BIN)/uv ## the pins in constraints.txt anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header --no-emit-index-url \
	  --group dev --output-file constraints.txt pyproject.toml

clean: ## delete what the targets have made
	rm -rf $(VENV) node_modules
