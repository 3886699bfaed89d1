# `make demo` and `make test` are all that a fresh clone needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Each process has a server and a fake PBS of its own; a real PBS is one for all.
ON_PBS = tests/pbs $(if $(HPC_BRIDGE_TEST_PBS),,-n 3 --dist loadfile)

.PHONY: help install demo test check unit embedded site-tests pbs-tests site-up site-down bench drill clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

install: $(VENV)/.installed ## set up .venv

demo: install ## run an example flow as a job on this machine
	$(BIN)/hpc-bridge demo

# The PBS takes two cores and has them alone; the site mostly waits, so the others run beside it.
test: install check ## all checks and tests
	@mkdir -p build; failed=0; \
	$(BIN)/python -m pytest $(ON_PBS) || failed=1; \
	echo "the site's tests run beside the others, into build/site-tests.log"; \
	$(BIN)/python -m pytest tests/site >build/site-tests.log 2>&1 & site=$$!; \
	$(BIN)/python -m pytest tests/embedded || failed=1; \
	$(BIN)/python -m pytest tests/unit || failed=1; \
	wait $$site || failed=1; cat build/site-tests.log; exit $$failed

check: install ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

pbs-tests: install ## the behaviour tests on a PBS: the fake, or that of HPC_BRIDGE_TEST_PBS
	$(BIN)/python -m pytest $(ON_PBS)

site-up: install ## bring up the Slurm test site (root on a Debian-like machine)
	tests/site/up --reuse --python $(VENV)

site-down: ## end the test site
	tests/site/down

bench: install ## the figures of the README
	$(BIN)/python -m benchmarks

RUNS ?= 100
drill: install ## kill everything under 100 flow runs, then compare all records (RUNS=100 SEED=7)
	$(BIN)/python -m drill --runs $(RUNS) $(if $(SEED),--seed $(SEED))

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache
