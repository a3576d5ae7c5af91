# What people type here. Every target sets up what it needs in .venv: Python >= 3.11 and make are enough.

PYTHONS   = python3.13 python3.12 python3.11 python3
VENV      = .venv
BIN       = $(VENV)/bin
# The whole suite mostly waits, for timeouts and leases: two at a time. A part of it runs in one process.
PYTEST_ARGS = -n 2 --dist loadfile
LINTED    = $(wildcard queue workers tests examples benchmarks)
CONTRACTS = $(shell grep -ls 'importlinter' setup.cfg pyproject.toml .importlinter)

.DEFAULT_GOAL = help
.PHONY: help demo test chaos soak mutations lint format wheel clean
# A recipe that fails half-way must not leave its stamp.
.DELETE_ON_ERROR:

help:
	@echo 'make demo       start a PostgreSQL, index the standard library with eight workers, say what happened'
	@echo 'make test       run the tests, on a PostgreSQL of their own; PYTEST_ARGS="-k cron -x" narrows them down'
	@echo 'make chaos      ten minutes of faults at random; SECONDS=3600 SEED=7 choose how long, and what happens'
	@echo 'make soak       half an hour of mixed load and faults: does anything grow? MINUTES=5 SEED=7 as well'
	@echo 'make mutations  break single lines of a copy, and see the tests notice'
	@echo 'make lint       ruff, mypy, import-linter'
	@echo 'make format     let ruff rewrite what it can'
	@echo 'make wheel      build dist/*.whl'
	@echo 'make clean      remove what make made, .venv included'

demo: $(VENV)/demo.stamp
	@$(BIN)/qworker demo

test: $(VENV)/test.stamp
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

chaos: $(VENV)/test.stamp
	@CHAOS_SECONDS=$(or $(SECONDS),600) $(if $(SEED),CHAOS_SEED=$(SEED)) $(BIN)/python -m pytest -s -o faulthandler_timeout=0 tests/chaos

soak: $(VENV)/test.stamp
	@$(BIN)/python -m tests.chaos.soak --minutes $(or $(MINUTES),30) $(if $(SEED),--seed $(SEED)) --json soak.json

mutations: $(VENV)/test.stamp
	@$(BIN)/python -m tests.mutations

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check $(LINTED)
	$(BIN)/ruff format --check $(LINTED)
	$(BIN)/mypy
	$(if $(CONTRACTS),$(BIN)/lint-imports)

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix $(LINTED)
	$(BIN)/ruff format $(LINTED)

wheel: $(VENV)/dev.stamp
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find $(LINTED) -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each set of packages (the extra of the same name in setup.cfg); the bigger sets hold the smaller.
$(VENV)/%.stamp: setup.cfg pyproject.toml $(VENV)/pyvenv.cfg
	@echo 'installing the packages of `$*` into $(VENV) ...'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

# A Python that is found may still not run (a pyenv shim without its version) or lack ensurepip (Debian splits it off).
$(VENV)/pyvenv.cfg:
	@recent= ; \
	for python in $(PYTHONS); do \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
	    recent=$$python; \
	    $$python -c 'import ensurepip, venv' >/dev/null 2>&1 || continue; \
	    echo "making $(VENV) with $$($$python --version) ..."; \
	    exec $$python -m venv --clear $(VENV); \
	done; \
	if [ -n "$$recent" ]; then \
	    echo "$$recent cannot make virtual environments: as root, run: apt-get install python3-venv" >&2; \
	else \
	    echo "Python 3.11 or newer is needed, and none of these is one: $(PYTHONS)" >&2; \
	fi; \
	exit 1

# An environment whose Python is gone (an upgrade) or that stood elsewhere (a moved checkout) is made anew.
ifneq ($(wildcard $(VENV)/pyvenv.cfg),)
ifneq ($(shell $(BIN)/python -c 'import sys; print(sys.prefix)' 2>/dev/null),$(abspath $(VENV)))
$(shell rm -rf $(VENV))
endif
endif
