#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# P-GRPO or GRPO | Gemma-2B (instruction-tuned) | FSDP | one node with 8 GPUs of 80 GB | verl 0.9.1, vLLM
#
#   bash recipes/personas/run_gemma_2b_fsdp.sh
#   ESTIMATOR=grpo MODE=separate_async bash recipes/personas/run_gemma_2b_fsdp.sh
#
# Composed and validated by this repository's tests; not yet run on GPUs. Data as in run_qwen3_1_7b_fsdp.sh; its chat
# template refuses system messages. Other variables: recipes/_common.sh.
set -xeuo pipefail

NAME=gemma_2b
ENGINE=fsdp
MODEL_PATH=${MODEL_PATH:-google/gemma-2b-it}
NNODES=${NNODES:-1}

# Half of what Qwen3-1.7B takes, as the vocabulary is larger: 256k tokens.
MAX_TOKENS_PER_GPU=${MAX_TOKENS_PER_GPU:-8192}
SYNC_OFFLOAD=False
SYNC_UTILIZATION=0.6
ROLLOUT_TP=${ROLLOUT_TP:-1}

source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"
