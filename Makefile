# make quick: what the commit hook runs. make check: all that needs no run. make fast: and the fast tests. make test: everything.
PYTHON ?= python
NODE_TOOLS = node_modules/.package-lock.json

.PHONY: quick check fast topic bundle test js format readme golden new-topic hooks lock bench load

quick:
	@$(PYTHON) -m ruff format --check --quiet . || (echo 'Some files are not formatted. Fix it with: make format' && exit 1)
	@$(PYTHON) -m ruff check . || (echo 'Some of these are fixed by make format, the others (long lines, say) by hand' && exit 1)
	@lint-imports > /dev/null || (lint-imports; echo 'The contracts and their reasons stand in pyproject.toml.' && exit 1)

check: quick
	$(PYTHON) -m mypy
	@$(MAKE) --no-print-directory js

# The browser's code: format, lint, types, unit tests. Needs node 20 or newer; the app itself does not.
js: $(NODE_TOOLS)
	npm run --silent check
	npm run --silent test

$(NODE_TOOLS): package-lock.json
	npm ci --no-audit --no-fund --silent

fast:
	$(PYTHON) -m pytest -m "not slow and not browser and not load"

# The tests that belong to one topic, without a browser, and the rules for all: make topic NAME=rope.
topic:
	$(PYTHON) -m pytest -m "not browser" tests/core tests/test_experiments.py -k "$(NAME)"
	$(PYTHON) -m pytest tests/test_architecture.py tests/test_words.py tests/test_readme.py

# Two files at a time; the tests of a file stay together, since they share what is slow to make.
test: check
	$(PYTHON) -m pytest -n 2 --dist loadfile

# assets/app.js: the browser's modules in one file.
bundle: $(NODE_TOOLS)
	$(PYTHON) -m pages._kit.bundle

format: $(NODE_TOOLS)
	$(PYTHON) -m ruff format .
	-$(PYTHON) -m ruff check --fix .
	npm run --silent format

# The README's table of experiments, from the lessons.
readme:
	$(PYTHON) -m pages._kit.readme

# Recorded messages for the browser's tests.
golden:
	$(PYTHON) -m tests.golden.messages

# make new-topic NAME=rope: a topic that runs, with its tab, its lesson and its tests.
new-topic:
	$(PYTHON) -m pages._kit.new_topic $(NAME)

hooks:
	pre-commit install

# requirements.lock: every package that the app installs, for every system, with hashes. Needs uv (pip install uv).
lock:
	uv pip compile --quiet --universal --no-annotate --generate-hashes --python-version 3.11 --custom-compile-command "make lock" --output-file requirements.lock requirements.txt

bench:
	$(PYTHON) -m tests.bench

load:
	$(PYTHON) -m tests.load.classroom
