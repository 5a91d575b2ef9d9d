# What CI and pre-commit run. `make check` is everything but the benchmarks.
PYTHON ?= python

.PHONY: check format lint types imports test bench

check: lint types imports test

format:
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

lint:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

types:
	$(PYTHON) -m mypy

imports:
	lint-imports

test:
	$(PYTHON) -m pytest -n 2

bench:
	for script in tests/benchmarks/bench_*.py; do echo "== $$script"; $(PYTHON) $$script || exit 1; done
