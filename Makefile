# make demo   the whole pipeline on the model that comes with the package, into outputs/demo
# make test   every check and test: modules in step with notebooks, lint, types, docs, notebooks, tests
# make sync   modules, clean notebooks and README from the notebooks, before a commit
# make docs   the documentation into _site
#
# A virtual environment is made in .venv on first use. PYTHON chooses the interpreter, TORCH the build of torch:
#   make demo TORCH="torch==2.13.0 --index-url URL"
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
PIP = PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The tools of the environment are found first, also by the scripts that make calls.
export PATH := $(abspath $(BIN)):$(PATH)
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test setup setup-dev sync docs lint browser clean

define LINT
	ruff check
	ruff check --isolated --select E501 --line-length 100 nbs
	mypy
endef

demo: setup
	fig run-pipeline --preset demo --output-dir outputs/demo

# pytest comes last, so that its closing line is the last one.
test: setup-dev browser
	python tools/colab.py check
	tools/check_sync.sh
	$(LINT)
	python tools/docs.py site
	python tools/check_site.py _site feature_interaction_graph
	pytest -q

setup: $(VENV)/installed
setup-dev: $(VENV)/installed-dev

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$(PYTHON) is older than 3.11; choose another with: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Exactly the versions of constraints.txt, except for torch, whose build is chosen above.
$(VENV)/constraints.txt: constraints.txt | $(BIN)/python
	grep -v '^torch==' constraints.txt > $@

$(VENV)/installed: settings.ini setup.py $(VENV)/constraints.txt
	@echo "installing into $(VENV) (about 2 GB and a few minutes the first time)"
	$(PIP) $(TORCH)
	$(PIP) -c $(VENV)/constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) -c $(VENV)/constraints.txt -e '.[dev]'
	touch $@

browser:
	tools/ensure_chromium.sh

sync: setup-dev
	python tools/colab.py write
	nbdev_export
	nbdev_clean
	python tools/docs.py readme

docs: setup-dev
	python tools/docs.py site

lint: setup-dev
	$(LINT)

clean:
	rm -rf _proc _site _docs outputs .pytest_cache .mypy_cache .ruff_cache
