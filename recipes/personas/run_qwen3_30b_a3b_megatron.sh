#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# P-GRPO or GRPO | Qwen3-30B-A3B | Megatron, EP | four nodes with 8 GPUs of 80 GB | verl 0.9.1, vLLM
#
#   export RAY_ADDRESS=http://head:8265        # Slurm, Kubernetes, clouds: docs/multinode.md
#   bash recipes/launch/ray_job.sh personas/run_qwen3_30b_a3b_megatron
#   ESTIMATOR=grpo MODE=separate_async bash recipes/launch/ray_job.sh personas/run_qwen3_30b_a3b_megatron
#
# Composed and validated by tests; not run on GPUs. Data as in run_qwen3_1_7b_fsdp.sh. Other variables:
# recipes/_common.sh.
set -xeuo pipefail

NAME=qwen3_30b_a3b
ENGINE=megatron
MOE=True
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen3-30B-A3B}
NNODES=${NNODES:-4}
KEEP_CHECKPOINTS=${KEEP_CHECKPOINTS:-2} # 14 bytes per parameter each

# As verl recommends (docs/perf/dpsk.md): an eighth of the experts per GPU, tokens exchanged over NVLink, no tensor
# parallelism and no pipeline.
TP=${TP:-1}
PP=${PP:-1}
EP=${EP:-8}
# Logits are not split at TP=1: 7 GiB for 4096 tokens. In separate_async half the copies share the experts' optimizer.
if [ "${MODE:-sync}" = separate_async ]; then
    MAX_TOKENS_PER_GPU=${MAX_TOKENS_PER_GPU:-2048}
fi
MAX_TOKENS_PER_GPU=${MAX_TOKENS_PER_GPU:-4096}
SYNC_OFFLOAD=True
SYNC_UTILIZATION=0.7
ROLLOUT_TP=${ROLLOUT_TP:-4} # one of the four KV heads and 14 GiB of weights per GPU

source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"
