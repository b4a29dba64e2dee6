# Everything that one does with this repository, from a bare clone. No shell needs to be activated.
#
# `make setup` installs requirements/cpu.txt into .venv. torch goes first and alone, because whatever else asks for torch
# may bring CUDA with it, gigabytes that nothing here uses. On Linux the CPU build is a choice of index: where pip's
# default index gives you CUDA builds, set PIP_INDEX_URL or PIP_EXTRA_INDEX_URL to PyTorch's index of CPU wheels. All of
# pip's own variables are honoured.
#
# The quickstart reads N, NOISE, STEPS and SEED, from the environment or from make's command line:
#   N=8 NOISE=0 make quickstart        or        make quickstart N=8 NOISE=0

.POSIX:
.SUFFIXES:
.DEFAULT_GOAL := help
.PHONY: help setup test test-fast test-megatron test-launch test-clusters stress matrix lint quickstart megatron megatron-demo bench clean

SHELL := /bin/sh
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.setup-done
PACKAGES := $(VENV)/lib/python*/site-packages
# What has a target of its own.
REST := not stress and not launch and not clusters
FAST := not e2e and not slow and not gpu and not megatron and $(REST)

# The interpreter that .venv is made from, e.g. `make setup PYTHON=/usr/bin/python3.12`. Without it, the first that the
# pinned versions are for.
PYTHON ?=
PYTHONS = $(or $(PYTHON),python3.11 python3.12 python3 python)
FITS := import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))

help:  ## print this
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name what; do \
	  printf '  make %-12s %s\n' "$$name" "$$what"; done

setup: $(STAMP)  ## create .venv with everything that the other targets need (a second call does nothing)

# The stamp is written last and holds the place it was made for: an interrupted, moved or copied .venv is set up again.
# That goes on where it stopped. pip writes INSTALLER when all of a package's files are there, and parks what it replaces
# under names with a tilde: by these one sees what an interrupted call left half done, which pip itself would take for
# installed.
ifneq ($(CURDIR),$(shell cat $(STAMP) 2>/dev/null))
.PHONY: $(STAMP)
endif

$(STAMP): pyproject.toml $(wildcard requirements/*.txt)
	@set -e; \
	if $(RUN) -c '' 2>/dev/null; then \
	  $(RUN) -c '$(FITS)' || { \
	    echo "setup: .venv is of $$($(RUN) -V), the pinned versions are for Python 3.11 and 3.12." >&2; \
	    echo "setup: remove .venv (make clean) and call again, if need be with PYTHON=/path/to/python3.11." >&2; exit 1; }; \
	else \
	  found=; \
	  for python in $(PYTHONS); do \
	    if "$$python" -c '$(FITS)' 2>/dev/null; then found=$$python; break; fi; \
	  done; \
	  [ -n "$$found" ] || { \
	    echo "setup: found no Python 3.11 or 3.12, which the pinned versions are for; tried: $(PYTHONS)." >&2; \
	    echo "setup: name one with PYTHON=/path/to/python3.11." >&2; exit 1; }; \
	  echo "setup: [1/4] .venv of $$("$$found" -V)"; \
	  "$$found" -m venv --clear $(VENV); \
	fi; \
	rm -f $(STAMP); \
	for info in $(PACKAGES)/*.dist-info; do \
	  if [ -e "$$info/METADATA" ] && [ ! -e "$$info/INSTALLER" ]; then \
	    echo "setup: $$(basename "$$info") is half installed; again"; rm -rf "$$info"; \
	  fi; \
	done; \
	rm -rf $(PACKAGES)/~*; \
	$(RUN) -m pip --version > /dev/null 2>&1 || $(RUN) -m ensurepip > /dev/null; \
	torch=$$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' requirements/cpu.txt); \
	echo "setup: [2/4] $$torch, first and alone"; \
	$(RUN) -m pip install -c requirements/cpu.txt "$$torch"; \
	$(RUN) -c 'import torch; torch.version.cuda and print("setup: note: a CUDA build; see the head of the Makefile")'; \
	echo "setup: [3/4] the pinned working set, requirements/cpu.txt (minutes)"; \
	$(RUN) -m pip install --no-deps -r requirements/cpu.txt; \
	echo "setup: [4/4] this project, editable"; \
	$(RUN) -m pip install --no-deps --no-build-isolation --editable .; \
	printf '%s\n' '$(CURDIR)' > $(STAMP); \
	echo "setup: done, $$(du -sh $(VENV) | cut -f1) in .venv"

test: lint megatron  ## everything: lint, types, unit, property and golden tests, then real verl runs on the CPU
	$(RUN) -m pytest -m "not e2e and $(REST)" --durations=10
	$(RUN) -m pytest -m "e2e and $(REST)" --durations=10

test-fast: $(STAMP)  ## the tests that take seconds, within three minutes in all
	$(RUN) -m pytest -m "$(FAST)" --durations=10

test-clusters: $(STAMP)  ## the launchers on Slurm, Ray and SkyPilot clusters of two nodes that are this machine
	$(RUN) -m pytest -m clusters --durations=10

test-launch: $(STAMP)  ## launches broken by the dozen for preflight, doctor, eval and judge with real vLLM, patched verls
	$(RUN) -m pytest -m "launch and not stress" --durations=10

stress: $(STAMP)  ## what takes long and rarely finds more: thousands of damaged files and of killed writers
	$(RUN) -m pytest -m stress -rP

matrix: $(STAMP)  ## every supported verl (VERSIONS=...): fast tests and a CPU run each; writes the README's table
	$(RUN) -m tests.matrix "$(FAST)" $(VERSIONS)

lint: $(STAMP)  ## ruff's rules and format, mypy
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy verl_pgrpo

quickstart: $(STAMP)  ## train with grpo and with pgrpo on the CPU, then compare what each persona got
	$(RUN) recipes/personas/quickstart.py

megatron: $(STAMP)
	@for pin in $$(sed -n 's/^\([a-z].*\)/\1/p' requirements/megatron.txt); do \
	  $(RUN) -m pip install --quiet --no-deps "$$pin"; \
	done

test-megatron: megatron  ## of these the ones with verl's Megatron engine: layouts against each other, a run killed and resumed
	$(RUN) -m pytest -m "megatron and not stress" --durations=10

megatron-demo: megatron  ## tensor-parallel P-GRPO with verl's Megatron engine on the CPU, saved and resumed
	$(RUN) recipes/personas/megatron_demo.py

bench: $(STAMP)  ## the short forms of what docs/benchmarks.md has: learning, then speed as ratios
	$(RUN) -m benchmarks.bandit --quick
	$(RUN) benchmarks/advantage.py --quick --rounds 5
	$(RUN) benchmarks/peers.py --quick
	$(RUN) benchmarks/driver.py --quick
	$(RUN) benchmarks/plugin_import.py --rounds 3
	$(RUN) benchmarks/history.py --groups 1000000
	$(RUN) benchmarks/adv_step.py --quick

# What .gitignore names and git does not track, and nothing else: not what your own global ignore file hides (editor
# settings, .env), as `git clean -X` would, and not work that is merely uncommitted.
clean:  ## leave a clean clone: remove .venv, runs, caches and everything else that .gitignore names
	@set -e; \
	git rev-parse --is-inside-work-tree > /dev/null; \
	git ls-files --others --ignored --exclude-from=.gitignore --directory -z | xargs -0 rm -rf --; \
	echo "clean: done"
