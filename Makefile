# make demo    watch three silos serve a shop while one of them is killed
# make test    all tests
# make check   all that CI does: lint, types, floors, wheel, tests
# make bench   the figures of bench/RESULTS.md, on this machine
#
# A fresh machine needs python3 (3.11 or later) and make; the first run fills .venv from PyPI.

BIN := .venv/bin
# Real processes are started and stopped by some tests: a file's tests stay on one worker.
PYTEST_ARGS ?= -n 2 --dist loadfile
PATHS := durum tests bench examples

.PHONY: demo test check bench lint format types layers wheel clean

demo: .venv/.run-ready
	@$(BIN)/durum demo $(ARGS)

test: .venv/.dev-ready
	@$(BIN)/python -m pytest $(PYTEST_ARGS) $(ARGS)

check: lint types layers wheel test

bench: .venv/.dev-ready
	@$(BIN)/python -m bench $(ARGS)

lint: .venv/.dev-ready
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: .venv/.dev-ready
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

types: .venv/.dev-ready
	@$(BIN)/mypy

layers: .venv/.dev-ready
	@$(BIN)/lint-imports

# What is published is the wheel, so that is what must work: alone, outside the checkout.
wheel: .venv/.dev-ready
	@scripts/try-wheel

.venv/.run-ready: pyproject.toml scripts/setup
	@echo "setting up .venv (once)"
	@scripts/setup run
	@touch $@

.venv/.dev-ready: pyproject.toml scripts/setup
	@echo "setting up .venv with the tools (once)"
	@scripts/setup dev
	@touch .venv/.run-ready $@

clean:
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
