# Chores. `make demo` and `make test` set up their own .venv on a fresh machine.
PYTHON ?= python3
BIN := .venv/bin

.venv/.ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --upgrade pip
	$(BIN)/pip install -q -e '.[runtime,dev]'
	touch $@

.PHONY: demo test test-fast lint golden bench-compile
