#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# P-GRPO or GRPO | Qwen3-235B-A22B | Megatron, TP x PP x EP | 32 nodes with 8 GPUs of 80 GB | verl 0.9.1, vLLM
#
#   export RAY_ADDRESS=http://head:8265        # Slurm, Kubernetes, clouds: docs/multinode.md
#   bash recipes/launch/ray_job.sh personas/run_qwen3_235b_a22b_megatron
#   NNODES=16 bash recipes/launch/ray_job.sh personas/run_qwen3_235b_a22b_megatron
#   ESTIMATOR=grpo MODE=separate_async bash recipes/launch/ray_job.sh personas/run_qwen3_235b_a22b_megatron
#   ROLLOUT_TP=16 ROLLOUT_DP=1 bash recipes/launch/ray_job.sh personas/run_qwen3_235b_a22b_megatron # vLLM 0.28 or later
#
# Composed and validated by tests; not run on GPUs. Data as in run_qwen3_1_7b_fsdp.sh. Other variables:
# recipes/_common.sh.
set -xeuo pipefail

NAME=qwen3_235b_a22b
ENGINE=megatron
MOE=True
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen3-235B-A22B}
NNODES=${NNODES:-32}
SAVE_FREQ=${SAVE_FREQ:-8}
KEEP_CHECKPOINTS=${KEEP_CHECKPOINTS:-2} # 3.3 TB each

# 97 % of the parameters belong to experts, split by EP x PP = 64: 21 GiB of weights and gradients per GPU, and four copies
# (two on 16 nodes) to share their optimizer. EP=8 exchanges tokens within a node, TP=4 splits the attention there.
TP=${TP:-4}
PP=${PP:-8}
EP=${EP:-8}
# 94 layers over 8 stages: 11, six times 12, 11. The first and the last stage also hold the embeddings and the output.
FIRST_STAGE_LAYERS=${FIRST_STAGE_LAYERS-11}
LAST_STAGE_LAYERS=${LAST_STAGE_LAYERS-11}

# The pipeline idles (PP - 1) / (m + PP - 1) of the time with m micro-batches per update. A persona's prompt and response
# have some 210 tokens:  m = mini-batch x n x 210 / copies / MAX_TOKENS_PER_GPU
#   sync, 32 nodes            1024 x 2 x 210 / 8 / 2048 = 26    idle 21 %
#   separate_async, 32 nodes   512 x 2 x 210 / 4 / 2048 = 26    idle 21 %
#   (sync with mini-batches of 512 and 4096 tokens: 7, idle 50 %)
MAX_TOKENS_PER_GPU=${MAX_TOKENS_PER_GPU:-2048}
SYNC_OFFLOAD=True
SYNC_UTILIZATION=0.75
if [ "${MODE:-sync}" = separate_async ]; then
    PPO_MINI_BATCH_SIZE=${PPO_MINI_BATCH_SIZE:-512}
    # Eight updates per weight sync, which takes minutes (verl, delta_weight_sync.md: 246 to 266 s).
    TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-$((PPO_MINI_BATCH_SIZE * ${PARAMETER_SYNC_STEP:-8}))}
    # One vLLM per node: 55 GiB of weights and 11 GiB of cache per GPU.
    ASYNC_UTILIZATION=0.85
    ROLLOUT_DP=${ROLLOUT_DP:-1}
fi
PPO_MINI_BATCH_SIZE=${PPO_MINI_BATCH_SIZE:-1024}
# In sync, 55 GiB of weights do not fit next to the trainer's during a weight sync, so one vLLM spans two nodes: attention
# is split by 8 within each, experts by 16 over both. vLLM 0.28 and later reject the arguments that verl 0.9.1 passes for
# ROLLOUT_DP=2 over nodes (patches/0002); use ROLLOUT_TP=16 ROLLOUT_DP=1 with them.
ROLLOUT_TP=${ROLLOUT_TP:-8}
ROLLOUT_DP=${ROLLOUT_DP:-2}
ROLLOUT_EP=${ROLLOUT_EP:-$((ROLLOUT_TP * ROLLOUT_DP))}

source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"
