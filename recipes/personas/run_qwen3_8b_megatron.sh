#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# P-GRPO or GRPO | Qwen3-8B | Megatron, TP | one node with 8 GPUs of 80 GB | verl 0.9.1, vLLM
#
#   bash recipes/personas/run_qwen3_8b_megatron.sh
#   ESTIMATOR=grpo MODE=separate_async bash recipes/personas/run_qwen3_8b_megatron.sh
#
# Composed and validated by tests; not run on GPUs. Data as in run_qwen3_1_7b_fsdp.sh. Other variables:
# recipes/_common.sh.
set -xeuo pipefail

NAME=qwen3_8b
ENGINE=megatron
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen3-8B}
NNODES=${NNODES:-1}

# The smallest TP that fits both modes: bf16 weights and fp32 gradients are 6 bytes per parameter, 46 GiB in all.
TP=${TP:-2}
MAX_TOKENS_PER_GPU=${MAX_TOKENS_PER_GPU:-8192} # sixteen full sequences
SYNC_OFFLOAD=True
SYNC_UTILIZATION=0.7
ROLLOUT_TP=${ROLLOUT_TP:-1} # 15 GiB of weights fit one GPU: no communication, and the most replicas

source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"
