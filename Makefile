# Every target makes the virtual environment and installs the package if needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
NANO := ide3d_nano_rooms nano_more_rooms nano_all_tasks nano_benchmark_words

# A file of tests to each core, each with one thread: the tests are many and small.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n logical --dist loadfile

export HF_HUB_OFFLINE ?= 1

.PHONY: help install install-test demo nano emergence emergence-small test test-slow test-all test-app parity lint docs clean

help:
	@echo "make demo      ask the shipped nano model, fine-tune it on rooms of another style (15 minutes on 2 cores)"
	@echo "make nano      train, measure and ship the nano model (hours; an interrupted run goes on)"
	@echo "make emergence     the study of what geometry losses change (hours; an interrupted one goes on)"
	@echo "make emergence-small  the same, two arms and two seeds (30 minutes on 2 cores)"
	@echo "make test      fast tests"
	@echo "make test-slow slow tests alone"
	@echo "make test-all  all tests, slow ones included"
	@echo "make test-app  tests of the page in the browser, with the older Pillow that gradio asks for"
	@echo "make parity    comparison with the original's numeric vectors (IDE3D_GOLDEN=folder)"
	@echo "make lint      ruff, and how docstrings are written"
	@echo "make docs      the pages of docs/ and the API reference into site/, any warning is an error"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# One stamp for each set of extras: the demo installs no test tools.
$(BIN)/.installed-%: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e ".[$*]"
	touch $@

install: $(BIN)/.installed-examples

install-test: $(BIN)/.installed-test

demo: install
	$(BIN)/python -m examples.demo

nano: install
	$(foreach stage,$(NANO),$(BIN)/python examples/train.py examples/recipes/$(stage).yaml &&) true
	$(BIN)/python examples/evaluate_rooms.py outputs/$(lastword $(NANO))/export --num-rooms 500 --output outputs/$(lastword $(NANO))/evaluation.json
	$(BIN)/python examples/ship_nano.py $(NANO:%=outputs/%) --target examples/checkpoints/ide3d-nano-rooms

emergence: install
	$(BIN)/python -m examples.emergence examples/recipes/emergence.yaml --split test

emergence-small: install
	$(BIN)/python -m examples.emergence examples/recipes/emergence_small.yaml

test: install-test
	$(PYTEST)

test-slow: install-test
	$(PYTEST) -m "slow and not gpu and not network"

test-all: install-test
	$(PYTEST) -m "not gpu and not network"

test-app: $(BIN)/.installed-test,app
	$(PYTEST) -m "not gpu and not network" tests/ide3d/app

parity: install-test
	$(BIN)/python -m pytest -q tests/parity -rs

lint: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/docstring_lint.py

# The variable silences an announcement of the theme's authors, which is no warning about these pages.
docs: $(BIN)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build site *.egg-info
