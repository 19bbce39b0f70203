# Brushwork: `make run`, `make check`, `make test`, `make demo`. Everything is installed into .venv, by pip.
#
#   make run PYTHON=python3.12 ARGS="--port 9000 --no-browser"
#   make run PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"   # torch without CUDA

PYTHON ?= python3
PIP_ARGS ?=
ARGS ?=
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder
CHECKED := tests/app tests/worker/lora_files tests/worker/bases tests/worker/hub tests/test_layers.py
INSTALLED := .venv/.installed
INSTALLED_TEST := .venv/.installed-test

.DEFAULT_GOAL := help
.PHONY: help run check test demo lint fmt check-python clean
# The tests start many processes; without cached bytecode, each would compile the app again.
unexport PYTHONDONTWRITEBYTECODE

help:
	@echo "make run    install, migrate, start everything, open the browser   (ARGS=\"--port 9000\")"
	@echo "make check  install, check style and types, run the quick tests   (ARGS=\"-k guard\")"
	@echo "make test   install, check style and types, run every test        (ARGS=\"-k guard\")"
	@echo "make demo   install, train the example style, write the result to demo/"
	@echo "make lint   check style and types        make fmt   write the style"
	@echo "make clean  remove .venv and caches; your data folder stays"

run: $(INSTALLED)
	@$(BIN)/brushwork serve $(ARGS)

test: lint
	@echo "== Tests"
	@$(PYTEST) $(ARGS)

check: lint
	@echo "== Quick tests"
	@$(PYTEST) -m unit $(CHECKED) $(ARGS)

demo: $(INSTALLED)
	@$(BIN)/brushwork demo $(ARGS)

lint: $(INSTALLED_TEST)
	@echo "== Style: ruff check, ruff format"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@echo "== Layers: import-linter"
	@$(BIN)/lint-imports --no-logo
	@echo "== Types: mypy --strict"
	@$(BIN)/mypy

fmt: $(INSTALLED_TEST)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# Installs once, and again when the list of dependencies changes.
$(INSTALLED): pyproject.toml | check-python
	@test -x $(BIN)/python || { echo "== Making .venv with $(PYTHON)"; $(PYTHON) -m venv .venv; }
	@echo "== Installing Brushwork and its requirements into .venv (the first time: some minutes)"
	@$(BIN)/python -m pip install --quiet $(PIP_ARGS) -e .
	@touch $@

$(INSTALLED_TEST): pyproject.toml $(INSTALLED)
	@echo "== Installing the requirements of checks and tests"
	@$(BIN)/python -m pip install --quiet $(PIP_ARGS) -e '.[test]'
	@touch $@

check-python:
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Brushwork needs Python 3.11 or newer, and '$(PYTHON)' is not that." \
	  "Install one, or name it: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis demo *.egg-info
	find app worker migrations tests -name __pycache__ -type d -prune -exec rm -rf {} +
