#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# P-GRPO or a control | Qwen3-1.7B | FSDP2 | one node with 8 GPUs of 80 GB | verl 0.9.1, vLLM
#
#   verl-pgrpo data personas --out data/personas_english --surface english \
#       --train-size 16384 --val-size 210 --noise 0.2
#   bash recipes/personas/run_qwen3_1_7b_fsdp.sh
#   ESTIMATOR=grpo bash recipes/personas/run_qwen3_1_7b_fsdp.sh
#   MODE=separate_async bash recipes/personas/run_qwen3_1_7b_fsdp.sh
#   verl-pgrpo report grpo=runs/personas/qwen3_1_7b_sync_grpo_n2 pgrpo=runs/personas/qwen3_1_7b_sync_pgrpo_n2 -o report.html
#
# Composed and validated by tests; not run on GPUs. Other variables: recipes/_common.sh.
set -xeuo pipefail

NAME=qwen3_1_7b
ENGINE=fsdp
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen3-1.7B}
NNODES=${NNODES:-1}

# 32 full sequences of 512 tokens per micro-batch. Their logits (152k tokens of vocabulary) take 4.6 GiB in bf16, and
# several times that with softmax and gradient; weights, gradients and optimizer (16 bytes per parameter) take 3 GiB per
# GPU when sharded over eight, so nothing is offloaded.
MAX_TOKENS_PER_GPU=${MAX_TOKENS_PER_GPU:-16384}
SYNC_OFFLOAD=False
SYNC_UTILIZATION=0.6
ROLLOUT_TP=${ROLLOUT_TP:-1} # the model fits one GPU: as many replicas as GPUs
# Tied embeddings: 1.72 G parameters and the table of 0.31 G once more, 4 bytes each as FSDP sends fp32: 7,750 MiB.
# Right for the default model only. For a larger tied MODEL_PATH set BUCKET_MB by the same sum; preflight checks it.
BUCKET_MB=${BUCKET_MB:-8192}

source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"
