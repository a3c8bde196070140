# Needs Python 3.11 or newer and nothing else; every target sets up what it needs.
PYTHON ?= python3
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
WORKERS ?= 2
HARDWARE ?= simulated,miniature
TIERS ?= gpu4x24 or gpu5x24 or gpu1x80
SUITES ?= $(addprefix suites/tiers/test_,gpu4x24.py gpu5x24.py gpu1x80.py)

COMPAT_TORCH ?= 2.13.0
CUDA_TORCH ?= ===2.13.0
CUDA_TORCH_INDEX ?= https://pypi.org/simple
UPDATE_DOCS ?=
FAST_TESTS := tests/test_torch_private.py tests/simulation tests/parity tests/parallel/test_load.py tests/parallel/test_ulysses.py

VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin
CUDA_VENV := .cuda-dry-run
CUDA_READY := $(CUDA_VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup conformance quality fuzz test compat cuda-dry-run lint mutants clean
.PHONY: night-tiers night-quality night-published night-fuzz night-tests

help:  ## What can be made, and with which variables
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\nvariables: PYTHON=%s  WORKERS=%s  HARDWARE=%s\n' '$(PYTHON)' '$(WORKERS)' '$(HARDWARE)'
	@printf '           COMPAT_TORCH="%s"\n' '$(COMPAT_TORCH)'
	@printf '           TIERS="%s"\n           TORCH_INDEX=%s\n' '$(TIERS)' '$(TORCH_INDEX)'

conformance: $(READY)  ## Does Live Avatar run on each tier? Answers without a card
	$(BIN)/pytest -m "$(TIERS)" --hardware=$(HARDWARE) --require-baselines --report-html=report/report.html $(SUITES)

quality: $(READY)  ## What do fewer bits, steps and pixels do to the video? In miniature
	$(BIN)/pytest suites/quality --hardware=miniature --require-baselines

fuzz: $(READY)  ## Do drawn recipes keep the rules of memory, results and refusal?
	OMP_NUM_THREADS=1 $(BIN)/pytest suites/fuzz --fuzz-profile=ci -n $(WORKERS)

test: lint  ## Checks of the project itself: style, types, tests
	$(BIN)/pytest tests -n $(WORKERS)

compat: $(COMPAT_TORCH:%=compat-%)  ## The fast tests on the oldest and the newest torch of pyproject.toml

compat-%:
	@PYTHON='$(PYTHON)' TORCH_INDEX='$(TORCH_INDEX)' TORCH='$*' ci/setup.sh .compat/torch-$*
	.compat/torch-$*/bin/python -m pytest $(FAST_TESTS) -n $(WORKERS) -q

cuda-dry-run: $(READY) $(CUDA_READY)  ## Do recipes do on a card what simulations say? Without a card; sets up 6 GB
	$(BIN)/python -m ci.cuda_dry_run --python=$(CUDA_VENV)/bin/python $(UPDATE_DOCS)

$(CUDA_READY): pyproject.toml ci/constraints.txt ci/setup.sh
	@PYTHON='$(PYTHON)' TORCH_INDEX='$(CUDA_TORCH_INDEX)' TORCH='$(CUDA_TORCH)' ci/setup.sh $(CUDA_VENV)
	@touch $@

lint: $(READY)  ## Style and types only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

mutants: $(READY)  ## Which small changes of the code that judges does no test notice? For the night
	OMP_NUM_THREADS=1 $(BIN)/python -m ci.mutants

night-tiers: $(READY)  ## Every tier and remedy that has a baseline, simulated and in miniature. For the night
	$(BIN)/pytest suites/tiers --hardware=simulated,miniature --require-baselines --report-html=report/report.html

night-quality: $(READY)  ## Videos of a minute, and of several processes. For the night
	$(BIN)/pytest suites/quality -m nightly --hardware=miniature --require-baselines

night-published: $(READY)  ## What others published, against runs. For the night
	$(BIN)/pytest suites/published -m published --hardware=simulated --require-baselines

night-fuzz: $(READY)  ## Drawn recipes, for longer. For the night
	OMP_NUM_THREADS=1 $(BIN)/pytest suites/fuzz --fuzz-profile=nightly -n $(WORKERS)

night-tests: $(READY)  ## Tests that take minutes. For the night
	$(BIN)/pytest tests -m nightly -n $(WORKERS)

setup: $(READY)  ## The virtual environment only

$(READY): pyproject.toml ci/constraints.txt ci/setup.sh
	@PYTHON='$(PYTHON)' TORCH_INDEX='$(TORCH_INDEX)' ci/setup.sh $(VENV)
	@touch $@

clean:  ## Remove the virtual environment, reports and caches
	rm -rf $(VENV) $(CUDA_VENV) .compat report build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks mutants
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
