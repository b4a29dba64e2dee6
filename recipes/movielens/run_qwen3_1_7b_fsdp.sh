#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# P-GRPO or a control | Qwen3-1.7B | FSDP2 | one node with 8 GPUs of 80 GB | verl 0.9.1, vLLM
#
#   verl-pgrpo data movielens --archive ml-1m.zip --out data/movielens --groups 8 --seed 0
#   bash recipes/movielens/run_qwen3_1_7b_fsdp.sh
#   ESTIMATOR=grpo bash recipes/movielens/run_qwen3_1_7b_fsdp.sh
#   ESTIMATOR=reinforce_plus_plus bash recipes/movielens/run_qwen3_1_7b_fsdp.sh
#   RANDOM_GROUPS=1 bash recipes/movielens/run_qwen3_1_7b_fsdp.sh
#
# Composed and validated by tests; not run on GPUs. Other models: TASK=movielens before any script
# in recipes/personas. Other variables: recipes/_common.sh.
set -xeuo pipefail

TASK=movielens
source "$(dirname "${BASH_SOURCE[0]}")/../personas/run_qwen3_1_7b_fsdp.sh"
