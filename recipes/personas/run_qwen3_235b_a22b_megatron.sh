#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# P-GRPO or GRPO | Qwen3-235B-A22B | Megatron, TP x PP x EP | 32 nodes with 8 GPUs of 80 GB | verl 0.9.1, vLLM
#
#   bash recipes/personas/run_qwen3_235b_a22b_megatron.sh        # on the head of a Ray cluster of 32 nodes
#   NNODES=16 bash recipes/personas/run_qwen3_235b_a22b_megatron.sh
#   ESTIMATOR=grpo MODE=separate_async bash recipes/personas/run_qwen3_235b_a22b_megatron.sh
#
# Composed and validated by this repository's tests; not yet run on GPUs. Data as in run_qwen3_1_7b_fsdp.sh. Other
# variables: recipes/_common.sh.
set -xeuo pipefail

NAME=qwen3_235b_a22b
ENGINE=megatron
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen3-235B-A22B}
NNODES=${NNODES:-32}
NCCL_TIMEOUT=${NCCL_TIMEOUT:-7200}
SAVE_FREQ=${SAVE_FREQ:-50}
KEEP_CHECKPOINTS=${KEEP_CHECKPOINTS:-2} # each has 14 bytes a parameter

# 97 % of the parameters are experts', cut by EP x PP = 64: 21 GiB of weights and gradients a GPU, and at least two copies
# (four on 32 nodes) to share their optimizer. EP=8 keeps the exchange of tokens within a node, TP=4 the attention's.
TP=${TP:-4}
PP=${PP:-8}
EP=${EP:-8}
# 94 layers over 8 stages: 11, six times 12, 11; the first and the last also have the embeddings and the output.
FIRST_STAGE_LAYERS=${FIRST_STAGE_LAYERS-11}
LAST_STAGE_LAYERS=${LAST_STAGE_LAYERS-11}
# Eight stages wait for each other less with many small micro-batches, and want a larger mini-batch.
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-1024}
PPO_MINI_BATCH_SIZE=${PPO_MINI_BATCH_SIZE:-512}
MAX_TOKENS_PER_GPU=${MAX_TOKENS_PER_GPU:-4096}
SYNC_OFFLOAD=True
SYNC_UTILIZATION=0.75
# One vLLM in two nodes: attention cut by 8 within each, experts by 16 over both. In one node the weights alone would take
# 55 GiB of each GPU.
ROLLOUT_TP=${ROLLOUT_TP:-8}
ROLLOUT_DP=${ROLLOUT_DP:-2}
ROLLOUT_EP=${ROLLOUT_EP:-$((ROLLOUT_TP * ROLLOUT_DP))}

source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"
