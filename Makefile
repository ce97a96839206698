# The one place that says how this project is built and checked.
# `make` alone lists the targets.

# Bash, for recipes that stop at the first error of a pipeline.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
# The stages run one after the other whatever -j says: a reader sees the first
# one that failed, and it is the last one that ran.
.NOTPARALLEL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
# More arguments for pytest, such as PYTEST_ARGS="-x -k lease"; "-n 0" for one
# test at a time, which a debugger wants.
PYTEST_ARGS ?=
PYTEST := $(BIN)/python -m pytest -q
# Tests wait for daemons more than they compute, and each process of pytest has
# servers of its own.
MANY := -n auto --maxprocesses 4 --dist worksteal

heading = @printf '\n== %s\n' '$(1)'

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-11s%s\n", $$1, $$2 }' \
		$(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: bootstrap ## Show the coordinator at work on this machine
	@$(BIN)/sharedcache demo

.PHONY: recording
recording: bootstrap ## Record the demo as the picture in the README
	@$(BIN)/python scripts/record-demo.py docs/demo.svg

.PHONY: test
test: bootstrap-tests lint types layers tests user-run ## Run every check and every test

.PHONY: check
check: lint types layers quick-tests ## Run the checks that need no servers

.PHONY: lint
lint: venv ## Check style and formatting
	$(call heading,Style)
	@$(BIN)/ruff check --quiet --output-format concise .
	@$(BIN)/ruff format --check --quiet .

.PHONY: types
types: venv ## Check types
	$(call heading,Types)
	@$(BIN)/mypy

.PHONY: layers
layers: venv ## Check that imports run downward only
	$(call heading,Layers)
	@$(BIN)/lint-imports --no-logo

.PHONY: quick-tests
quick-tests: venv
	$(call heading,Unit and property tests)
	@$(PYTEST) $(MANY) $(PYTEST_ARGS) tests/unit tests/property

.PHONY: tests
tests: bootstrap-tests
	$(call heading,Tests)
	@$(PYTEST) $(MANY) $(PYTEST_ARGS) tests

# Root passes permission checks that an ordinary user does not, so a suite that
# only root ran has not shown that the program works for anybody else.
.PHONY: user-run
user-run: bootstrap
	@if [ "$$(id -u)" -ne 0 ]; then exit 0; fi; \
	if [ "$${SKIP_USER_RUN-}" = 1 ]; then \
		printf '\n== Tests as an ordinary user: skipped, as SKIP_USER_RUN=1 asks\n'; \
	else \
		printf '\n== Tests as an ordinary user\n'; \
		scripts/test-as-user.sh; \
	fi

.PHONY: model
model: bootstrap-tests ## Check the protocol's model, the long runs too
	@$(BIN)/python -m tests.model

# Not part of `make test`: it wants root, an emulator and minutes.
.PHONY: test-nfs
test-nfs: bootstrap-nfs ## Try the storage on a real NFS server, with two guests
	@SHAREDCACHE_NFS=1 $(PYTEST) $(PYTEST_ARGS) -m nfs tests/fault

# SCHEDULES=n and FIRST=n choose the seeds, MINUTES=n how long at most; SEED=n replays one with its trace,
# STRIKE=operation:change:mode a crash point; STORY=name tells one story only;
# MUTANT=name takes a protection out, to see that it is found.
.PHONY: simulate
simulate: bootstrap ## Run the shipped services under 100,000 schedules
	@$(BIN)/python -m tests.simulation \
		$(if $(SCHEDULES),--schedules $(SCHEDULES)) $(if $(FIRST),--first $(FIRST)) \
		$(if $(MINUTES),--minutes $(MINUTES)) \
		$(if $(SEED),--seed $(SEED)) $(if $(STRIKE),--strike $(STRIKE)) \
		$(if $(MUTANT),--mutant $(MUTANT)) $(if $(STORY),--story $(STORY))

# Every process that a test starts reports what it ran.  TESTS="tests/unit" runs a
# part, KEEP=1 adds it to what earlier parts ran; tracing makes everything slower,
# so by default fewer schedules are simulated.
TESTS ?= tests
.PHONY: coverage
coverage: bootstrap-tests ## Run the tests and report which code none of them ran
	@[ -n "$(KEEP)" ] || rm -f .coverage .coverage.*
	@status=0; \
	SCHEDULES=$${SCHEDULES:-300} $(BIN)/coverage run -m pytest -q $(PYTEST_ARGS) \
		$(TESTS) || status=$$?; \
	$(BIN)/coverage combine --quiet --append; $(BIN)/coverage report; exit $$status

.PHONY: bench
bench: bootstrap ## Run the benchmarks
	$(call heading,Benchmarks)
	@shopt -s nullglob; scripts=(benchmarks/*.py); \
	if [ $${#scripts[@]} -eq 0 ]; then echo 'There are none.'; fi; \
	for script in "$${scripts[@]}"; do \
		printf '\n-- %s\n' "$$script"; $(BIN)/python "$$script"; \
	done

.PHONY: bootstrap
bootstrap: ## Install what building, testing and the demo need
	@scripts/bootstrap.sh

.PHONY: bootstrap-tests
bootstrap-tests:
	@scripts/bootstrap.sh --tests

.PHONY: bootstrap-nfs
bootstrap-nfs:
	@scripts/bootstrap.sh --nfs

.PHONY: venv
venv: ## Make .venv with the package and its tools
	@scripts/bootstrap.sh --venv-only

.PHONY: clean
clean: ## Remove what builds and tests leave, and .venv
	@rm -rf .venv .kernel build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache .coverage ./.coverage.* ./*.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
