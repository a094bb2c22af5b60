# Each target sets up what it needs by itself. `make demo` and `make test` are the two commands to know.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test tests lint types bench results format clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-8s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "arcedge needs Python 3.10 or newer; set PYTHON=…")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)  ## export a bundle, run it on a video, compare FP32, FP16 and INT8: everything lands in build/demo
	$(BIN)/python -m benchmarks.demo --out build/demo

# Types are checked beside the tests: mypy has one thread, and else the other cores would wait for it. It says nothing
# where nothing is wrong, and make does not say which folder it leaves: what pytest counted is the last line.
test: lint  ## lint, types and all tests
	$(MAKE) --no-print-directory --jobs 2 types tests

# The suite in its own order, a stretch of it for each worker, so that hardly a file's fixtures are made twice; a worker
# that has come to the end takes over half of what another has left.
tests: $(READY)  ## all tests, a worker a core
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

lint: $(READY)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## mypy --strict
	$(BIN)/mypy --no-error-summary

bench: $(READY)  ## micro and stage benchmarks, with machine info, to build/benchmarks.json
	mkdir -p build
	$(BIN)/python -m pytest benchmarks/micro --benchmark-json build/benchmarks.json

results: $(READY)  ## export, measure beside peers, keep: benchmarks/results, docs/results.md, README (DATA=folder of real data)
	$(BIN)/python -m benchmarks.reproduce --data $(or $(DATA),../shared)

format: $(READY)  ## let ruff put things right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what was built, keep the environment
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
