#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# P-GRPO or a control | Qwen3-1.7B | FSDP | one node with 8 GPUs of 80 GB | verl 0.9.1, vLLM
#
#   verl-pgrpo data goodreads --reviews goodreads_reviews_poetry.json.gz \
#       --books goodreads_books_poetry.json.gz --out data/goodreads --seed 0
#   bash recipes/goodreads/run_qwen3_1_7b_fsdp.sh
#   ESTIMATOR=grpo bash recipes/goodreads/run_qwen3_1_7b_fsdp.sh
#   ESTIMATOR=reinforce_plus_plus bash recipes/goodreads/run_qwen3_1_7b_fsdp.sh # normalised over the batch
#   RANDOM_GROUPS=1 bash recipes/goodreads/run_qwen3_1_7b_fsdp.sh               # P-GRPO with groups that mean nothing
#
# Composed and validated by this repository's tests; not yet run on GPUs. Any verl key can follow as an argument.
set -xeuo pipefail

ESTIMATOR=${ESTIMATOR:-pgrpo}
RANDOM_GROUPS=${RANDOM_GROUPS:-0}
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen3-1.7B}
DATA_DIR=${DATA_DIR:-data/goodreads}
NNODES=${NNODES:-1}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-8}
NAME=${ESTIMATOR}
GROUP_KEY=()
if [ "${RANDOM_GROUPS}" = 1 ]; then
    NAME=${ESTIMATOR}_random_groups
    GROUP_KEY=(+algorithm.pgrpo.group_key=extra_info.random_group)
fi
RUN_DIR=${RUN_DIR:-runs/goodreads_${NAME}}

# The same for every estimator, so that nothing else differs. Four is where GRPO still has a usable generation group.
ROLLOUT_N=${ROLLOUT_N:-4}
# 1024 responses a step: a preference group of one per cent adds ten rewards a step to its history.
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-256}
# Two updates a step. Advantages are computed once a step, before them.
PPO_MINI_BATCH_SIZE=${PPO_MINI_BATCH_SIZE:-128}
# Title, stars and 60 words of a description have some 150 tokens.
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-512}
# 120 words are about 160 tokens; more room, so that what is too long is scored as such and not cut.
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-256}
# Logits over 152k tokens of vocabulary take 5 GB in bf16 for a micro-batch of this many.
MAX_TOKENS_PER_GPU=${MAX_TOKENS_PER_GPU:-16384}
ACTOR_LR=${ACTOR_LR:-1e-6}
# Word lists and overlap can be pleased without pleasing anybody: stay near the model as it was.
KL_LOSS_COEF=${KL_LOSS_COEF:-0.001}
TOTAL_EPOCHS=${TOTAL_EPOCHS:-2} # 128 steps of 16384 rows

python3 -m verl.trainer.main_ppo \
    algorithm.adv_estimator="${ESTIMATOR}" "${GROUP_KEY[@]}" \
    algorithm.use_kl_in_reward=False \
    data.train_files="${DATA_DIR}/train.parquet" \
    data.val_files="${DATA_DIR}/val.parquet" \
    data.train_batch_size="${TRAIN_BATCH_SIZE}" \
    data.max_prompt_length="${MAX_PROMPT_LENGTH}" \
    data.max_response_length="${MAX_RESPONSE_LENGTH}" \
    data.filter_overlong_prompts=True \
    data.seed=0 \
    +data.apply_chat_template_kwargs.enable_thinking=False \
    reward.custom_reward_function.path=pkg://verl_pgrpo.rewards.goodreads \
    actor_rollout_ref.model.path="${MODEL_PATH}" \
    actor_rollout_ref.model.use_remove_padding=True \
    actor_rollout_ref.model.enable_gradient_checkpointing=True \
    actor_rollout_ref.actor.optim.lr="${ACTOR_LR}" \
    actor_rollout_ref.actor.ppo_mini_batch_size="${PPO_MINI_BATCH_SIZE}" \
    actor_rollout_ref.actor.use_dynamic_bsz=True \
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu="${MAX_TOKENS_PER_GPU}" \
    actor_rollout_ref.actor.use_kl_loss=True \
    actor_rollout_ref.actor.kl_loss_coef="${KL_LOSS_COEF}" \
    actor_rollout_ref.actor.kl_loss_type=low_var_kl \
    actor_rollout_ref.actor.entropy_coeff=0 \
    actor_rollout_ref.rollout.name=vllm \
    actor_rollout_ref.rollout.n="${ROLLOUT_N}" \
    actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6 \
    actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True \
    actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu="${MAX_TOKENS_PER_GPU}" \
    actor_rollout_ref.ref.log_prob_use_dynamic_bsz=True \
    actor_rollout_ref.ref.log_prob_max_token_len_per_gpu="${MAX_TOKENS_PER_GPU}" \
    trainer.logger='["console","file"]' \
    trainer.project_name=goodreads \
    trainer.experiment_name="qwen3_1_7b_${NAME}" \
    trainer.default_local_dir="${RUN_DIR}/checkpoints" \
    trainer.rollout_data_dir="${RUN_DIR}/rollouts" \
    trainer.n_gpus_per_node="${NGPUS_PER_NODE}" \
    trainer.nnodes="${NNODES}" \
    trainer.save_freq=20 \
    trainer.test_freq=10 \
    trainer.total_epochs="${TOTAL_EPOCHS}" \
    "$@"
