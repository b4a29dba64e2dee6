#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# P-GRPO or a control | Qwen3-1.7B | FSDP2 | one node with 8 GPUs of 80 GB | verl 0.9.1, vLLM
#
#   verl-pgrpo data goodreads --reviews goodreads_reviews_poetry.json.gz \
#       --books goodreads_books_poetry.json.gz --out data/goodreads --seed 0
#   bash recipes/goodreads/run_qwen3_1_7b_fsdp.sh
#   ESTIMATOR=grpo bash recipes/goodreads/run_qwen3_1_7b_fsdp.sh
#   ESTIMATOR=reinforce_plus_plus bash recipes/goodreads/run_qwen3_1_7b_fsdp.sh
#   RANDOM_GROUPS=1 bash recipes/goodreads/run_qwen3_1_7b_fsdp.sh
#
# Composed and validated by tests; not run on GPUs. Other models: TASK=goodreads before any script
# in recipes/personas. Other variables: recipes/_common.sh.
set -xeuo pipefail

TASK=goodreads
source "$(dirname "${BASH_SOURCE[0]}")/../personas/run_qwen3_1_7b_fsdp.sh"
