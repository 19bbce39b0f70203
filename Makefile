# Brushwork: `make run`, `make check`, `make test`, `make demo`. Everything is installed into .venv, by
# pip: app/install chooses the build of torch and says what it downloads.
#
#   make run PYTHON=python3.12 ARGS="--port 9000 --no-browser"
#   make run TORCH_INDEX=https://download.pytorch.org/whl/cpu   # another build of torch
#   make run VENV=/srv/brushwork-venv                           # where this folder is read-only

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
PIP_ARGS ?=
ARGS ?=
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder
WIDE := tests/app tests/browser tests/worker
CHECKED := tests/app tests/worker/lora_files tests/worker/bases tests/worker/hub tests/test_layers.py
INSTALLED := $(VENV)/.installed
INSTALLED_TEST := $(VENV)/.installed-test

.DEFAULT_GOAL := help
.PHONY: help run check test costs lines wide tools faults faults-table soak demo screenshots clients lint lock fmt check-python clean \
  style types tests quick-tests
# The tests start many processes; without cached bytecode, each would compile the app again.
unexport PYTHONDONTWRITEBYTECODE

help:
	@echo "make run    install, migrate, start everything, open the browser   (ARGS=\"--port 9000\")"
	@echo "make check  install, check style and types, run the quick tests   (ARGS=\"-k guard\")"
	@echo "make test   install, check style and types, run the tests         (ARGS=\"-k guard\")"
	@echo "make costs  print what the last make test cost in CPU seconds, beside the budget of each folder"
	@echo "make lines  print the lines of each area beside the budget in pyproject.toml"
	@echo "make wide   install, run the tests in all windows, themes, databases, options (ARGS=\"-k axe\")"
	@echo "make tools  install, run the tests of builders, benchmarks, installer, package (ARGS=\"-k eyes\")"
	@echo "make faults install, break real stacks in all ways of docs/faults.md (ARGS=\"-k lock\")"
	@echo "make faults-table  write the times of the last whole run of them into docs/faults.md"
	@echo "make soak   install, load and kill a real stack for 20 minutes, check it (SECONDS=120)"
	@echo "make demo   install, train the example style, write the result to demo/"
	@echo "make screenshots  train the example style, photograph the pages into docs/images/"
	@echo "make clients  generate clients of the REST API into build/clients, check a script   (Node.js)"
	@echo "make lint   check style and types        make fmt   write the style"
	@echo "make lock   write the versions and hashes for the container image into requirements/"
	@echo "make clean  remove .venv and caches; your data folder stays"

run: $(INSTALLED)
	@$(BIN)/brushwork serve $(ARGS)

# mypy runs beside the tests, which often wait; -k: if either fails, so does make, at the end of both.
test: style
	@$(MAKE) --no-print-directory -k -j 2 types tests

tests: $(INSTALLED_TEST)
	@echo "== Tests"
	@$(PYTEST) -p tests.cpu_seconds -m "not faults and not tools and not wide" $(ARGS)

# Fails where the last `make test` cost more than the budget in tests/costs.py allows.
costs: $(INSTALLED_TEST)
	@$(BIN)/python -m tests.cpu_seconds

# Fails where an area has more lines than its budget in pyproject.toml.
lines: $(INSTALLED_TEST)
	@$(BIN)/python -m tests.lines

# A test whose cases are a product (windows and themes, databases, options) marks those `wide` of which
# others say nearly the same.
wide: $(INSTALLED_TEST)
	@echo "== Wide: the full products of windows, themes, databases and options"
	@$(PYTEST) -m wide $(WIDE) $(ARGS)

tools: $(INSTALLED_TEST)
	@echo "== Tools: builders, benchmarks, the installer, the package"
	@$(PYTEST) -m tools $(ARGS)

# They mostly wait for outages to pass, so three processes fit on two cores.
faults: $(INSTALLED_TEST)
	@echo "== Faults: leases of two seconds, outages of fifteen leases"
	@$(PYTEST) -n 3 -m faults tests/faults $(ARGS)

# After a whole `make faults` on a quiet machine.
faults-table: $(INSTALLED_TEST)
	@$(BIN)/python -m tests.faults.table

soak: $(INSTALLED_TEST)
	@$(BIN)/python -m tests.faults.soak --seconds $(or $(SECONDS),1200) $(ARGS)

check: style
	@$(MAKE) --no-print-directory -k -j 2 types quick-tests

quick-tests: $(INSTALLED_TEST)
	@echo "== Quick tests"
	@$(PYTEST) -m unit $(CHECKED) $(ARGS)

demo: $(INSTALLED)
	@$(BIN)/brushwork demo $(ARGS)

screenshots: $(INSTALLED_TEST)
	@$(BIN)/python -m docs.screenshots $(ARGS)

lint: style types

style: $(INSTALLED_TEST)
	@echo "== Style: ruff check, ruff format"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@echo "== Layers: import-linter"
	@$(BIN)/lint-imports --no-logo

types: $(INSTALLED_TEST)
	@echo "== Types: mypy --strict"
	@$(BIN)/mypy

clients: $(INSTALLED_TEST)
	@clients/make $(BIN)

lock: $(INSTALLED_TEST)
	@requirements/lock $(BIN)

fmt: $(INSTALLED_TEST)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# Installs once, and again when the list of dependencies changes.
INSTALL = $$(test -x $(BIN)/python && echo $(BIN)/python || echo $(PYTHON)) -m app.install \
  --venv "$(VENV)" --torch-index "$(TORCH_INDEX)"

$(INSTALLED): pyproject.toml | check-python
	@$(INSTALL) -- $(PIP_ARGS)
	@touch $@

$(INSTALLED_TEST): pyproject.toml | check-python
	@$(INSTALL) --extra test -- $(PIP_ARGS)
	@touch $(INSTALLED) $@

check-python:
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Brushwork needs Python 3.11 or newer, and '$(PYTHON)' is not that." \
	  "Install one, or name it: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis demo *.egg-info
	find app worker tools migrations tests -name __pycache__ -type d -prune -exec rm -rf {} +
