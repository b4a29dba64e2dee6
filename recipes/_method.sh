# shellcheck shell=bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# The differences between runs of a recipe: the method, its controls (one variable each), and the source of rewards. Used
# on GPUs and on the CPU. Sets METHOD (arguments of verl) and VARIANT (a part of the run's name).
#
#   ESTIMATOR      pgrpo (default)
#                  grpo: normalized over the responses to one prompt; reinforce_plus_plus: over the batch
#   PGRPO_OPTIONS        of P-GRPO, separated by spaces: PGRPO_OPTIONS="baseline=shrinkage group_balance=0.5" (docs/reference.md)
#   RANDOM_GROUPS  1: P-GRPO with random groups of the same sizes
#   EQUAL_GROUPS   1: the preference groups (of PGRPO_OPTIONS' group_key, if given) are sampled equally, with any
#                  estimator. An epoch has more steps then, because the rows of rarer groups are repeated: compare runs with
#                  the same trainer.total_training_steps
#   JUDGE          a model that scores the responses instead of the task's rules (personas and goodreads; other tasks need
#                  REWARD), on JUDGE_NNODES (1) nodes of its own, JUDGE_TP (1) GPUs per replica
#   REWARD         verl's reward.custom_reward_function.path, for a task of your own

# Quote a path for Hydra, whose grammar does not allow `=`, `(`, `)`, commas or non-ASCII letters in an unquoted value.
quoted() {
    local quote="'"
    printf "'%s'" "${1//"${quote}"/"\\${quote}"}"
}

ESTIMATOR=${ESTIMATOR:-pgrpo}
JUDGE=${JUDGE:-}
if [[ -n ${JUDGE} && -z ${REWARD:-} && ${TASK} != personas && ${TASK} != goodreads ]]; then
    echo "JUDGE=${JUDGE} TASK=${TASK}: only personas and goodreads have a judge's reward; set REWARD" >&2
    exit 2
fi
REWARD=${REWARD:-pkg://verl_pgrpo.rewards.${TASK}${JUDGE:+_judge}}
VARIANT=${ESTIMATOR}
METHOD=(
    algorithm.adv_estimator="${ESTIMATOR}"
    reward.custom_reward_function.path="$(quoted "${REWARD}")"
)

case "${RANDOM_GROUPS:-0} ${ESTIMATOR}" in
"0 "*) ;;
"1 pgrpo")
    VARIANT+=_random_groups
    METHOD+=(+algorithm.pgrpo.group_key=extra_info.random_group)
    ;;
*)
    echo "RANDOM_GROUPS=${RANDOM_GROUPS} ESTIMATOR=${ESTIMATOR}: must be 0 or 1, and 1 only with pgrpo" >&2
    exit 2
    ;;
esac

case "${EQUAL_GROUPS:-0}" in
0) ;;
1) VARIANT+=_equal_groups ;;
*)
    echo "EQUAL_GROUPS=${EQUAL_GROUPS}: must be 0 or 1" >&2
    exit 2
    ;;
esac

if [ -n "${PGRPO_OPTIONS:-}" ] && [ "${ESTIMATOR}" != pgrpo ]; then
    echo "PGRPO_OPTIONS=${PGRPO_OPTIONS} ESTIMATOR=${ESTIMATOR}: these are options of pgrpo" >&2
    exit 2
fi
if [ -n "${JUDGE}" ] && [ "${ESTIMATOR}" = pgrpo ]; then
    # A judge that cannot be reached after all retries gives NaN; this drops such rows instead of ending the run.
    METHOD+=(+algorithm.pgrpo.on_nonfinite=skip)
fi
GROUP_KEY=preference_group
for option in ${PGRPO_OPTIONS:-}; do
    if [ "${RANDOM_GROUPS:-0} ${option%%=*}" = "1 group_key" ]; then
        echo "PGRPO_OPTIONS=${PGRPO_OPTIONS} RANDOM_GROUPS=1: group_key must be left out, RANDOM_GROUPS sets it" >&2
        exit 2
    fi
    [[ ${option} != group_key=* ]] || GROUP_KEY=${option#*=}
    VARIANT+=_${option//[^a-zA-Z0-9.]/_}
    METHOD+=("++algorithm.pgrpo.${option}") # replaces a value from above
done

if [ -n "${JUDGE}" ]; then
    judge=${JUDGE%/}
    judge=${judge##*/}
    VARIANT+=_judge_${judge//[^a-zA-Z0-9.]/_}
    METHOD+=(
        +reward.custom_reward_function.reward_kwargs.judge_model="$(quoted "${JUDGE}")"
        # vLLM then allows only answers from 0 to 10; a malformed one would be a NaN reward.
        +reward.custom_reward_function.reward_kwargs.judge_constrain=True
        reward.reward_model.enable=True
        reward.reward_model.model_path="$(quoted "${JUDGE}")"
        # On its own GPUs the judge scores each response when it arrives; on the policy's it would wait for all of them.
        reward.reward_model.enable_resource_pool=True
        reward.reward_model.nnodes="${JUDGE_NNODES:-1}"
        reward.reward_model.n_gpus_per_node="${NGPUS_PER_NODE}"
        reward.reward_model.rollout.name=vllm
        reward.reward_model.rollout.tensor_model_parallel_size="${JUDGE_TP:-1}"
        # Otherwise verl 0.9.1 puts the judge to sleep after start-up, and wakes only engines on the policy's GPUs.
        reward.reward_model.rollout.free_cache_engine=False
    )
fi

# Set TRAIN_FILE, and create it if the groups are to be sampled equally.
choose_train_file() {
    local data=${DATA_DIR}/train.parquet
    TRAIN_FILE=${data}
    if [ "${EQUAL_GROUPS:-0}" = 1 ]; then
        TRAIN_FILE=${DATA_DIR}/train_equal_${GROUP_KEY//[^a-zA-Z0-9._]/_}.parquet
        if [ ! "${TRAIN_FILE}" -nt "${data}" ]; then
            "${PYTHON:-python3}" -m verl_pgrpo.cli data equalize --input "${data}" --out "${TRAIN_FILE}" \
                --group-key "${GROUP_KEY}"
        fi
    fi
}

# Set METRICS: log into RUN_DIR, where the report reads it, with a new file for each start, because verl's file logger would
# overwrite the log before a resume. The logger runs in a Ray worker, which on a cluster lacks this shell's environment.
log_metrics() {
    local file=${RUN_DIR}/metrics.jsonl start=1
    while [ -e "${file}" ]; do
        start=$((start + 1))
        file=${RUN_DIR}/metrics_${start}.jsonl
    done
    mkdir -p "${RUN_DIR}"
    METRICS=(
        trainer.logger='["console","file"]'
        +ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH="$(quoted "${VERL_FILE_LOGGER_PATH:-${file}}")"
    )
}
