#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# P-GRPO or GRPO | Qwen3-32B | Megatron, TP x PP | four nodes with 8 GPUs of 80 GB | verl 0.9.1, vLLM
#
#   export RAY_ADDRESS=http://head:8265        # Slurm, Kubernetes, clouds: docs/multinode.md
#   bash recipes/launch/ray_job.sh personas/run_qwen3_32b_megatron
#   ESTIMATOR=grpo MODE=separate_async bash recipes/launch/ray_job.sh personas/run_qwen3_32b_megatron
#
# Composed and validated by tests; not run on GPUs. Data as in run_qwen3_1_7b_fsdp.sh. Other variables:
# recipes/_common.sh.
set -xeuo pipefail

NAME=qwen3_32b
ENGINE=megatron
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen3-32B}
NNODES=${NNODES:-4}
KEEP_CHECKPOINTS=${KEEP_CHECKPOINTS:-2} # 14 bytes per parameter each

# One copy of the model per node: tensor parallelism over NVLink, a short pipeline, and four copies (two in
# separate_async) to share the optimizer.
TP=${TP:-4}
PP=${PP:-2}
MAX_TOKENS_PER_GPU=${MAX_TOKENS_PER_GPU:-8192}
SYNC_OFFLOAD=True
SYNC_UTILIZATION=0.7
ROLLOUT_TP=${ROLLOUT_TP:-4} # 15 GiB of weights per GPU, two replicas per node

source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"
