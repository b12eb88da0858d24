# make check: what the commit hook and CI run first. make test: everything.
PYTHON ?= python

.PHONY: check fast test format bench load

check:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	lint-imports

fast:
	$(PYTHON) -m pytest -m "not slow and not browser and not load"

test: check
	$(PYTHON) -m pytest

format:
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

bench:
	$(PYTHON) -m tests.bench

load:
	$(PYTHON) -m tests.load.classroom
