# make demo, make test: from a fresh clone, these are all that is needed.
#
#   VENV    the environment to make and use
#   PYTHON  its interpreter: 3.10, python3.10 or a path; by default `python3` if it is 3.8 to 3.13
#   TESTS   what `make test` gives to pytest
#   DURATION    of `make soak` and `make fuzz`, in seconds
#   OLD     for `make compare-stacks`: an environment with Python 3.8 to 3.10

VENV ?= .venv
PYTHON ?=
TESTS ?= tests
OLD ?= .venv310
DURATION ?= 3600

# Put together again whenever what it is made from has changed.
ENV := $(VENV)/.installed
# The other contestants and MiniLM's weights, which nothing else needs.
BENCHMARK := $(VENV)/.benchmark
# On PATH, or where scripts/bootstrap.py puts it.
UV ?= $(or $(shell command -v uv),.uv/bin/uv)

.PHONY: demo test coverage test-old test-oldest lint check-wheel compare-stacks train-demo benchmark \
	benchmark-quick env lock docs clean soak fuzz syscall-faults

demo: $(ENV)
	@$(VENV)/bin/python examples/demo.py

test: $(ENV)
	$(VENV)/bin/python -m pytest $(TESTS)

# A part of the tests, as measuring takes twice the time; its subprocesses and forks are measured too.
coverage: $(ENV)
	$(VENV)/bin/coverage erase
	$(VENV)/bin/coverage run -m pytest tests/worker tests/data tests/settings_test.py \
		$(patsubst %,--ignore=tests/data/%_test.py,deduplication parquet_output remote) \
		tests/executors/in_process_test.py tests/executors/retries_test.py
	$(VENV)/bin/coverage combine --quiet
	$(VENV)/bin/coverage report --fail-under=65

# What depends on the libraries most: parity, pools, what makes models faster. Files and their faults,
# which are the same with all of them, are tested by `make test`.
test-old: $(ENV)
	$(VENV)/bin/python -m pytest tests/contract tests/accelerate tests/executors/pool tests/models \
		tests/compat tests/doctor tests/repository/bootstrap_test.py \
		$(patsubst %,--ignore=tests/contract/%_test.py,crash files input_kinds stateful_run)

# What depends on Python itself, and each kind of archive once.
test-oldest: $(ENV)
	$(VENV)/bin/python -m pytest tests/settings_test.py tests/common tests/worker tests/doctor \
		$(patsubst %,tests/data/%_test.py,sources formats compression parquet files)
	$(VENV)/bin/python -m pytest tests/contract/parity_test.py -k "forked and 4-2"

# What takes longer than a test may: use in which nothing may grow, damaged archives and checkpoints,
# and a fault at every system call that writes (by strace).
soak: $(ENV)
	$(VENV)/bin/python -W ignore -m tests.endurance.soak --seconds $(DURATION)

fuzz: $(ENV)
	$(VENV)/bin/python -W ignore -m tests.endurance.fuzz --seconds $(DURATION)

syscall-faults: $(ENV)
	$(VENV)/bin/python -W ignore -m tests.endurance.syscall_faults

# The wheel, built, and used in an empty environment.
check-wheel: $(ENV)
	$(VENV)/bin/python scripts/check_wheel.py

# Whether archives of the old stack give the same labels on the modern one.
compare-stacks: $(ENV)
	$(VENV)/bin/python scripts/compare_stacks.py $(OLD)/bin/python $(VENV)/bin/python

lint: $(ENV)
	$(VENV)/bin/black --check --diff --quiet .
	$(VENV)/bin/flake8
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# The site, in build/site; a broken link or reference is an error. Python 3.11 or later.
docs: $(ENV)
	$(VENV)/bin/mkdocs build --strict

train-demo: $(ENV)
	$(VENV)/bin/python -W ignore examples/g2p/train.py

benchmark: $(BENCHMARK)
	$(VENV)/bin/python benchmarks/run.py

benchmark-quick: $(BENCHMARK)
	$(VENV)/bin/python benchmarks/run.py --quick

env: $(ENV)

$(ENV): setup.cfg pyproject.toml requirements.lock requirements-modern.lock scripts/bootstrap.py
	@python3 scripts/bootstrap.py --venv $(VENV) --python "$(PYTHON)"
	@touch $@

$(BENCHMARK): $(ENV)
	$(VENV)/bin/python -m pip freeze --exclude-editable > $(BENCHMARK).txt
	$(VENV)/bin/python -m pip install --quiet --constraint $(BENCHMARK).txt --editable .[benchmark]
	@touch $@

# One solution for Python 3.8 to 3.10 and one for later ones. The files say what to install; from
# where is left to the user's own configuration of pip. torch is not in them: see bootstrap.py.
COMPILE = $(UV) pip compile --universal --extra dev --upgrade --generate-hashes --no-annotate --quiet \
	--no-emit-package torch --no-emit-package torchvision \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

lock:
	$(COMPILE) --python-version 3.8 --output-file requirements.lock setup.cfg
	$(COMPILE) --python-version 3.11 --extra docs --no-config --override requirements-modern.overrides \
		--output-file requirements-modern.lock setup.cfg requirements-modern.in

clean:
	rm -rf .venv* .uv build dist *.egg-info .pytest_cache .mypy_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
