# make play   set up whatever is missing, then walk through a world
# make test   set up whatever is missing, then run all checks
# make help   lists everything
#
# PYTHON=python3.12   the interpreter for .venv (3.11 or 3.12; found by itself)
# TORCH=...           what pip installs as torch, see tools/set_up.py
# ARGS=...            passed on: make play ARGS="--view third", make pytest ARGS="-k viewer"

VENV  := .venv
BIN   := $(VENV)/bin
READY := $(VENV)/.ready

# Any python3 can run the set-up; it looks for a fitting one itself.
BOOTSTRAP := $(or $(PYTHON),$(firstword $(foreach name,python3 python3.12 python3.11 python,$(shell command -v $(name)))))

.DEFAULT_GOAL := help
.PHONY: help play test lint format types pytest clean

help:            ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */  make \1	/' | expand -t 18

play: $(READY)   ## walk through a world (without a display: record a scripted walk)
	@$(BIN)/worldwire play $(ARGS)

test: lint types pytest   ## all checks: lint, types, tests

lint: $(READY)   ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY) ## let ruff repair what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY)  ## mypy, strict on the SDK
	$(BIN)/mypy

pytest: $(READY) ## the tests
	$(BIN)/pytest $(ARGS)

clean:           ## remove .venv, caches and build leftovers (recordings stay)
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml
	@test -n "$(BOOTSTRAP)" || { echo "no python3 found: install Python 3.11 or 3.12" >&2; exit 1; }
	@$(BOOTSTRAP) tools/set_up.py
