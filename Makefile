# Every target makes the virtual environment and installs the package if needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

export HF_HUB_OFFLINE ?= 1

.PHONY: help install demo test test-all parity lint clean

help:
	@echo "make demo      ask the shipped nano model about rooms, fine-tune it on other rooms (10 minutes on 2 cores)"
	@echo "make test      fast tests"
	@echo "make test-all  all tests, slow ones included"
	@echo "make parity    comparison with the original's numeric vectors (IDE3D_GOLDEN=folder)"
	@echo "make lint      ruff"

$(BIN)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[test]"
	touch $@

install: $(BIN)/.installed

demo: install
	$(BIN)/python examples/demo.py

test: install
	$(BIN)/python -m pytest -q

test-all: install
	$(BIN)/python -m pytest -q -m "not gpu and not network"

parity: install
	$(BIN)/python -m pytest -q tests/parity -rs

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) build *.egg-info
