#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# P-GRPO or GRPO | Qwen3-1.7B | FSDP | one node with 8 GPUs of 80 GB | verl 0.9.1, vLLM
#
#   python3 -m verl_pgrpo.data.personas --out data/personas_english --surface english \
#       --train-size 16384 --val-size 210 --noise 0.2
#   bash recipes/personas/run_qwen3_1_7b_fsdp.sh
#   ESTIMATOR=grpo bash recipes/personas/run_qwen3_1_7b_fsdp.sh
#   python3 -m verl_pgrpo.report.curves --run grpo=runs/personas_grpo/rollouts \
#       --run pgrpo=runs/personas_pgrpo/rollouts --out report.png
#
# Composed and validated by this repository's tests; not yet run on GPUs. Any verl key can follow as an argument.
set -xeuo pipefail

ESTIMATOR=${ESTIMATOR:-pgrpo}
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen3-1.7B}
DATA_DIR=${DATA_DIR:-data/personas_english}
RUN_DIR=${RUN_DIR:-runs/personas_${ESTIMATOR}}
NNODES=${NNODES:-1}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-8}

# Two responses a prompt: P-GRPO needs no generation group to normalise against, so a fixed budget of responses is
# better spent on more prompts. Give GRPO its best with ROLLOUT_N=8 TRAIN_BATCH_SIZE=128 PPO_MINI_BATCH_SIZE=64: as many
# responses a step.
ROLLOUT_N=${ROLLOUT_N:-2}
# 1024 responses a step. The rarest persona (5 %) then adds some 50 rewards a step to its history.
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-512}
# Two updates a step. Advantages are computed once a step, before them.
PPO_MINI_BATCH_SIZE=${PPO_MINI_BATCH_SIZE:-256}
# A profile and a request have about 100 tokens. 80 words are about 110; more room than that, so that an answer that is
# too long is scored as such (the utility lowers in proportion) and not cut to the wanted length.
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-256}
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-256}
# A micro-batch of 32 full sequences. Its logits over 152k tokens of vocabulary take 5 GB in bf16, 10 GB in fp32; the
# weights with gradients and optimizer (16 bytes a parameter) only 3.5 GB a GPU when sharded over eight.
MAX_TOKENS_PER_GPU=${MAX_TOKENS_PER_GPU:-16384}
ACTOR_LR=${ACTOR_LR:-1e-6}
# The utility counts words, and a policy can learn to please rules rather than users: stay near the model as it was.
KL_LOSS_COEF=${KL_LOSS_COEF:-0.001}
TOTAL_EPOCHS=${TOTAL_EPOCHS:-3}  # 96 steps of the 16384 prompts

DATA=(
    algorithm.adv_estimator="${ESTIMATOR}"
    algorithm.use_kl_in_reward=False
    data.train_files="${DATA_DIR}/train.parquet"
    data.val_files="${DATA_DIR}/val.parquet"
    data.train_batch_size="${TRAIN_BATCH_SIZE}"
    data.max_prompt_length="${MAX_PROMPT_LENGTH}"
    data.max_response_length="${MAX_RESPONSE_LENGTH}"
    data.seed=0 # both estimators see the same prompts in the same order
    +data.apply_chat_template_kwargs.enable_thinking=False # an answer of 80 words needs no chain of thought
    reward.custom_reward_function.path=pkg://verl_pgrpo.rewards.personas
)

ACTOR=(
    actor_rollout_ref.model.path="${MODEL_PATH}"
    actor_rollout_ref.model.use_remove_padding=True
    actor_rollout_ref.model.enable_gradient_checkpointing=True
    actor_rollout_ref.actor.optim.lr="${ACTOR_LR}"
    actor_rollout_ref.actor.ppo_mini_batch_size="${PPO_MINI_BATCH_SIZE}"
    actor_rollout_ref.actor.use_dynamic_bsz=True
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu="${MAX_TOKENS_PER_GPU}"
    actor_rollout_ref.actor.use_kl_loss=True
    actor_rollout_ref.actor.kl_loss_coef="${KL_LOSS_COEF}"
    actor_rollout_ref.actor.kl_loss_type=low_var_kl
    actor_rollout_ref.actor.entropy_coeff=0
)

ROLLOUT=(
    actor_rollout_ref.rollout.name=vllm
    actor_rollout_ref.rollout.n="${ROLLOUT_N}"
    actor_rollout_ref.rollout.tensor_model_parallel_size=1 # the model fits one GPU: eight replicas
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6
    actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True
    actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu="${MAX_TOKENS_PER_GPU}"
    actor_rollout_ref.ref.log_prob_use_dynamic_bsz=True
    actor_rollout_ref.ref.log_prob_max_token_len_per_gpu="${MAX_TOKENS_PER_GPU}"
)

TRAINER=(
    trainer.logger='["console","file"]'
    trainer.project_name=personas
    trainer.experiment_name="qwen3_1_7b_${ESTIMATOR}_n${ROLLOUT_N}"
    trainer.default_local_dir="${RUN_DIR}/checkpoints"
    trainer.rollout_data_dir="${RUN_DIR}/rollouts" # what the report reads
    trainer.n_gpus_per_node="${NGPUS_PER_NODE}"
    trainer.nnodes="${NNODES}"
    trainer.save_freq=20
    trainer.test_freq=10
    trainer.total_epochs="${TOTAL_EPOCHS}"
)

python3 -m verl.trainer.main_ppo \
    "${DATA[@]}" \
    "${ACTOR[@]}" \
    "${ROLLOUT[@]}" \
    "${TRAINER[@]}" \
    "$@"
