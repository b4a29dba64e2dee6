#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# P-GRPO or GRPO | Gemma-2B (instruction-tuned) | FSDP2 | one node with 8 GPUs of 80 GB | verl 0.9.1, vLLM
#
#   bash recipes/personas/run_gemma_2b_fsdp.sh
#   ESTIMATOR=grpo MODE=separate_async bash recipes/personas/run_gemma_2b_fsdp.sh
#
# Composed and validated by tests; not run on GPUs. Data as in run_qwen3_1_7b_fsdp.sh, without system messages, which
# Gemma's chat template rejects. Other variables: recipes/_common.sh.
set -xeuo pipefail

NAME=gemma_2b
ENGINE=fsdp
MODEL_PATH=${MODEL_PATH:-google/gemma-2b-it}
NNODES=${NNODES:-1}

MAX_TOKENS_PER_GPU=${MAX_TOKENS_PER_GPU:-8192} # half of Qwen3-1.7B's, because the vocabulary is larger (256k tokens)
SYNC_OFFLOAD=False
SYNC_UTILIZATION=0.6
ASYNC_UTILIZATION=0.45 # leaves room for three buckets of 12 GiB
ROLLOUT_TP=${ROLLOUT_TP:-1}
# Tied embeddings: 2.51 G parameters and the table of 0.52 G once more, 4 bytes each as FSDP sends fp32: 11,560 MiB.
# Right for the default model only. For a larger tied MODEL_PATH set BUCKET_MB by the same sum; preflight checks it.
BUCKET_MB=${BUCKET_MB:-12288}

source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"
