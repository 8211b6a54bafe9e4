# The words that a developer and CI share. `make` alone lists them.

PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2
CORES   := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 1)
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
PIP     := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# The tables of recipes take days, those of results a night; ask for them, or for parts, by hand.
BENCHMARKS := $(sort $(filter-out benchmarks/_% benchmarks/recipe.py benchmarks/first_recipe.py benchmarks/results.py benchmarks/tries.py benchmarks/witness.py,$(wildcard benchmarks/*.py)))

.DEFAULT_GOAL := help
.PHONY: install check fix test mutants bench results results-quick demo docs clean help

install: $(STAMP) ## make .venv with the pinned tools and this package in it

# The pin of torch comes first, so no later line can pull another build of it.
$(STAMP): pyproject.toml $(wildcard requirements/*.txt)
	$(PYTHON) -m venv $(VENV)
	$(PIP) "$$(head -n 1 requirements/dev.txt)"
	$(PIP) -r requirements/dev.txt
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

check: $(STAMP) ## formatting, lint, types and the import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(STAMP) ## format, and repair what ruff can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: $(STAMP) ## every test, warnings as errors; ARGS="-k wavelet" narrows it
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

mutants: $(STAMP) ## break the promise on purpose and see a test fail; ARGS="--only noise" narrows it
	$(BIN)/python tests/mutants.py --jobs $(WORKERS) $(ARGS)

bench: $(STAMP) ## time every script in benchmarks/, one after another
	@for script in $(BENCHMARKS); do echo "$$script"; $(BIN)/python $$script || exit 1; done

results: $(STAMP) ## the tables of three methods on stand-ins, a night for a set or two; ARGS="--sets scenes6" says which
	$(BIN)/python benchmarks/results.py --threads 1 --at-once $(CORES) $(ARGS)

results-quick: $(STAMP) ## the same in minutes, to test the machinery; it ranks nothing
	$(BIN)/python benchmarks/results.py --quick $(ARGS)

demo: build/demo/portraits ## a whole private run on 8,000 drawn portraits
	$(BIN)/dpwavelet run build/demo/portraits --epsilon 8 --samples 64 --captions examples/captions.txt \
		--out build/demo/run
	@echo build/demo/run/release/report.html

build/demo/portraits: | $(STAMP)
	$(BIN)/dpwavelet draw 8000 --out $@ --size 64

docs: $(STAMP) ## check that every link in our Markdown files leads somewhere
	$(BIN)/python docs/check_links.py

clean: ## remove caches and everything under build/ and dist/; .venv stays
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests benchmarks examples docs -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
