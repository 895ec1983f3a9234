# make demo | test | check | bench | isolated | format | clean
# PYTHON chooses the interpreter (3.11 or later), VENV the folder of the environment, BROKER the demo's broker,
# AT_ONCE how many processes share the tests: they wait more than they work.

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
BROKER ?= sqlite
TESTS ?= core/tests plugins tests
AT_ONCE ?= 3

.PHONY: setup demo test check bench format isolated clean

setup:
	@command -v $(PYTHON) >/dev/null || { echo "boost: no $(PYTHON) here; install Python 3.11 or later, or say: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) tools/setup_env.py $(VENV)

demo: setup
	@$(RUN) tools/with_broker.py $(BROKER) $(RUN) examples/stdlib_index/demo.py

test: setup
	@$(RUN) tools/servers install || [ "$(CI)" != true ]
	@$(RUN) -m pytest -n $(AT_ONCE) --dist worksteal $(TESTS) || { \
	  code=$$?; [ $$code -eq 1 ] || exit $$code; echo "what failed is run once more, by itself:"; \
	  $(RUN) -m pytest -vv --last-failed --last-failed-no-failures none $(TESTS); }

check: setup
	@$(RUN) -m ruff check . tools/servers
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@$(VENV)/bin/lint-imports
	@$(RUN) -m codespell_lib
	@$(RUN) tools/sync_packages.py --check

bench: setup
	@BROKER=$(BROKER) $(RUN) -m bench

isolated: setup
	@$(RUN) tools/check_isolated.py

format: setup
	@$(RUN) -m ruff check --fix-only .
	@$(RUN) -m ruff format .
	@$(RUN) tools/sync_packages.py

clean:
	rm -rf .venv dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
