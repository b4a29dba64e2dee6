#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# P-GRPO or GRPO | Qwen3-30B-A3B | Megatron, TP x PP x EP | four nodes with 8 GPUs of 80 GB | verl 0.9.1, vLLM
#
#   bash recipes/personas/run_qwen3_30b_a3b_megatron.sh        # on the head of a Ray cluster of four nodes
#   ESTIMATOR=grpo MODE=separate_async bash recipes/personas/run_qwen3_30b_a3b_megatron.sh
#
# Composed and validated by this repository's tests; not yet run on GPUs. Data as in run_qwen3_1_7b_fsdp.sh. Other
# variables: recipes/_common.sh.
set -xeuo pipefail

NAME=qwen3_30b_a3b
ENGINE=megatron
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen3-30B-A3B}
NNODES=${NNODES:-4}
NCCL_TIMEOUT=${NCCL_TIMEOUT:-3600}
KEEP_CHECKPOINTS=${KEEP_CHECKPOINTS:-2} # each has 14 bytes a parameter

# 95 % of the parameters are experts', so EP x PP decides: an eighth of them a GPU. EP=4 keeps the exchange of tokens within
# a node; TP=2 is for the attention's activations and the logits.
TP=${TP:-2}
PP=${PP:-2}
EP=${EP:-4}
MAX_TOKENS_PER_GPU=${MAX_TOKENS_PER_GPU:-8192}
SYNC_OFFLOAD=True
SYNC_UTILIZATION=0.7
ROLLOUT_TP=${ROLLOUT_TP:-4} # one of the four KV heads a GPU, and 14 GiB of weights

source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"
