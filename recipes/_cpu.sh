# shellcheck shell=bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# Shared by the CPU scripts. Each sets its task's sizes and sources this file, which launches verl with a CPU preset.
# These variables can be set in the environment; any verl key can follow a script's name as an argument. Method,
# controls and judge: recipes/_method.sh.
#
#   N, RESPONSES    responses per prompt and per step
#   STEPS, LR, SEED, MAX_PROMPT_LENGTH, MAX_RESPONSE_LENGTH, SAVE_FREQ, TEST_FREQ
#   NOISE           of the personas' ratings
#   DATA_DIR        contains train.parquet and val.parquet
#   MODEL_PATH      a folder; run_tiny_cpu.sh: DATA_DIR/model by default
#   RUN_DIR         results. The default name depends on the method, the judge, N, NOISE and SEED. Set it if you
#                   change anything else (REWARD, MODEL_PATH, LR): verl resumes from any checkpoint there
#   TIMEOUT         seconds after which the run is ended
#   PYTHON          default: python3
#
# Relative paths start at the repository's root. What a script creates (`create_data`, `create_model`) is created after
# these variables have been checked.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

NAME=${TASK}_${MODEL}
DATA_DIR=${DATA_DIR:-data/${NAME}}
MODEL_PATH=${MODEL_PATH:-${DATA_DIR}/model}
LR=${LR:-1e-3}
SEED=${SEED:-0}
NGPUS_PER_NODE=1 # one logical GPU for the policy, one for the judge

source recipes/_method.sh
if [ -n "${CPU_PRESET:-}" ] && [ -n "${JUDGE}" ]; then
    echo "JUDGE=${JUDGE}: this script has no preset with a judge; take run_tiny_cpu.sh" >&2
    exit 2
fi
if ! [[ ${N} =~ ^[1-9][0-9]*$ && ${RESPONSES} =~ ^[1-9][0-9]*$ ]] || ((RESPONSES % N)); then
    echo "N=${N} must divide RESPONSES=${RESPONSES}" >&2
    exit 2
fi
for create in create_data create_model; do
    if declare -F "${create}" > /dev/null; then
        "${create}"
    fi
done
RUN_DIR=${RUN_DIR:-runs/${NAME}/${VARIANT}-n${N}${NOISE:+-noise${NOISE}}-seed${SEED}}
log_metrics
choose_train_file

exec "${PYTHON:-python3}" -m verl_cpu.run --preset "${CPU_PRESET:-cpu${JUDGE:+_judge}}" --timeout "${TIMEOUT}" -- \
    hydra.run.dir="$(quoted "${RUN_DIR}/hydra")" \
    hydra.output_subdir=.hydra \
    "${METHOD[@]}" \
    data.train_files="$(quoted "${TRAIN_FILE}")" \
    data.val_files="$(quoted "${DATA_DIR}/val.parquet")" \
    data.train_batch_size=$((RESPONSES / N)) \
    data.max_prompt_length="${MAX_PROMPT_LENGTH}" \
    data.max_response_length="${MAX_RESPONSE_LENGTH}" \
    data.seed="${SEED}" \
    actor_rollout_ref.model.path="$(quoted "${MODEL_PATH}")" \
    actor_rollout_ref.actor.optim.lr="${LR}" \
    actor_rollout_ref.rollout.n="${N}" \
    actor_rollout_ref.rollout.seed="${SEED}" \
    actor_rollout_ref.rollout.max_model_len=$((MAX_PROMPT_LENGTH + MAX_RESPONSE_LENGTH)) \
    "${METRICS[@]}" \
    trainer.project_name="$(quoted "${NAME}")" \
    trainer.experiment_name="${VARIANT}" \
    trainer.total_training_steps="${STEPS}" \
    trainer.default_local_dir="$(quoted "${RUN_DIR}/checkpoints")" \
    trainer.rollout_data_dir="$(quoted "${RUN_DIR}/rollouts")" \
    trainer.save_freq="${SAVE_FREQ}" \
    trainer.test_freq="${TEST_FREQ}" \
    "$@"
