# make demo       install and run the demonstration: some 11 minutes on two cores the first time
# make test       install and run the tests
# make test-slow  the same with the long ones
# make lint       formatting, lint and types

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE := 1

.PHONY: demo test test-slow lint install clean

install: $(VENV)/.installed

# The lock is complete, so pip resolves nothing; requirements/README.md says why it must not.
$(VENV)/.installed: requirements/cpu.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/cpu.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: install
	$(BIN)/stillhouse run recipes/demo.yaml --run runs/demo

# Unit tests side by side, two at a time; the others share a Ray and an engine a module. Both run,
# also where the first fail.
test: install
	failed=0; \
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 tests/unit || failed=1; \
	$(BIN)/python -m pytest -m "not slow" tests/integration tests/fault || failed=1; \
	exit $$failed

test-slow: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) runs build *.egg-info
