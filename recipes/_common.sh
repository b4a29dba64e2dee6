# shellcheck shell=bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# What the scripts for GPUs share. Each sets what its model needs and then sources this file, which launches verl. Every
# variable can be set from the environment; any verl key can follow a script's name as an argument.
#
#   TASK        personas (default), movielens, goodreads: sizes from recipes/TASK/task.sh; or one of your own
#   DATA_DIR    has train.parquet and val.parquet
#   ESTIMATOR, RANDOM_GROUPS, JUDGE, REWARD    the method, its controls, who rewards: recipes/_method.sh
#   MODE        sync (default): the same GPUs generate and train, in turn
#               separate_async: half of them train while the other half generates, with weights a few updates old
#   NNODES, NGPUS_PER_NODE    all GPUs of the run, in either mode (a judge's come on top)
#
# Sizes are argued in recipes/TASK/README.md; their memory is worked out in recipes/large_models.md.

TASK=${TASK:-personas}
MODE=${MODE:-sync}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-8}

RECIPES=$(dirname "${BASH_SOURCE[0]}")
if [ -f "${RECIPES}/${TASK}/task.sh" ]; then
    source "${RECIPES}/${TASK}/task.sh"
fi
source "${RECIPES}/_method.sh"
if [ -n "${JUDGE}" ]; then
    METHOD+=(reward.reward_model.rollout.gpu_memory_utilization=0.85) # its GPUs hold nothing else
fi

# What a task's file has not set.
DATA_DIR=${DATA_DIR:-data/${TASK}}
# Two responses a prompt: P-GRPO needs no generation group to normalise against, so a fixed budget of responses is
# better spent on more prompts. Give GRPO its best with ROLLOUT_N=8: as many responses a step, a quarter of the prompts.
ROLLOUT_N=${ROLLOUT_N:-2}
# 1024 responses a step. A preference group of one per cent then adds ten rewards a step to its history.
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-$((1024 / ROLLOUT_N))}
# Two updates a step, in separate_async between two weight syncs. In sync the advantages of both are computed at once.
PPO_MINI_BATCH_SIZE=${PPO_MINI_BATCH_SIZE:-$((512 / ROLLOUT_N))}
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-512}
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-256}
ACTOR_LR=${ACTOR_LR:-1e-6}
# A policy can learn to please rules or judges rather than users: stay near the model as it was.
KL_LOSS_COEF=${KL_LOSS_COEF:-0.001}
TOTAL_EPOCHS=${TOTAL_EPOCHS:-1}
SAVE_FREQ=${SAVE_FREQ:-20}
KEEP_CHECKPOINTS=${KEEP_CHECKPOINTS:-null}
NCCL_TIMEOUT=${NCCL_TIMEOUT:-600} # seconds; loading a large model takes longer
EXPERIMENT=${EXPERIMENT:-${NAME}_${MODE}_${VARIANT}_n${ROLLOUT_N}}
RUN_DIR=${RUN_DIR:-runs/${TASK}/${EXPERIMENT}} # one for each model and mode: verl resumes from whatever it finds there
log_metrics

case "${MODE}" in
sync)
    TRAIN_NNODES=${NNODES}
    TRAIN_NGPUS_PER_NODE=${NGPUS_PER_NODE}
    ROLLOUT_UTILIZATION=${ROLLOUT_UTILIZATION:-${SYNC_UTILIZATION}}
    # While it generates, vLLM has the GPU almost to itself.
    OFFLOAD=${OFFLOAD:-${SYNC_OFFLOAD}}
    MODE_ARGUMENTS=(trainer.v1.trainer_mode=sync)
    ;;
separate_async)
    if [ "${NNODES}" = 1 ]; then
        TRAIN_NNODES=1
        ROLLOUT_NNODES=1
        ROLLOUT_NGPUS_PER_NODE=${ROLLOUT_NGPUS_PER_NODE:-$((NGPUS_PER_NODE / 2))}
        TRAIN_NGPUS_PER_NODE=$((NGPUS_PER_NODE - ROLLOUT_NGPUS_PER_NODE))
    else
        ROLLOUT_NNODES=${ROLLOUT_NNODES:-$((NNODES / 2))}
        ROLLOUT_NGPUS_PER_NODE=${NGPUS_PER_NODE}
        TRAIN_NNODES=$((NNODES - ROLLOUT_NNODES))
        TRAIN_NGPUS_PER_NODE=${NGPUS_PER_NODE}
    fi
    # vLLM shares its GPUs with nothing but the buffers of the weight sync.
    ROLLOUT_UTILIZATION=${ROLLOUT_UTILIZATION:-0.85}
    OFFLOAD=${OFFLOAD:-False}
    MODE_ARGUMENTS=(
        trainer.v1.trainer_mode=separate_async
        trainer.v1.separate_async.parameter_sync_step="${PARAMETER_SYNC_STEP:-$((TRAIN_BATCH_SIZE / PPO_MINI_BATCH_SIZE))}"
        data.gen_batch_size=1 # prompts that got too old are replaced in any number
        actor_rollout_ref.rollout.nnodes="${ROLLOUT_NNODES}"
        actor_rollout_ref.rollout.n_gpus_per_node="${ROLLOUT_NGPUS_PER_NODE}"
        actor_rollout_ref.rollout.checkpoint_engine.backend="${CHECKPOINT_ENGINE:-nccl}" # nccl needs cupy
        # No second vLLM on the GPUs that train: it would need their memory, and everything offloaded for it.
        actor_rollout_ref.hybrid_engine=False
        # With hybrid_engine=False verl 0.9.1 gives a log message of level INFO an argument that logging refuses.
        +ray_kwargs.ray_init.runtime_env.env_vars.VERL_LOGGING_LEVEL=WARN
    )
    ;;
*)
    echo "MODE=${MODE}: sync or separate_async" >&2
    exit 2
    ;;
esac

DATA=(
    algorithm.use_kl_in_reward=False
    data.train_files="${DATA_DIR}/train.parquet"
    data.val_files="${DATA_DIR}/val.parquet"
    data.train_batch_size="${TRAIN_BATCH_SIZE}"
    data.max_prompt_length="${MAX_PROMPT_LENGTH}"
    data.max_response_length="${MAX_RESPONSE_LENGTH}"
    data.filter_overlong_prompts=True # verl says how many; one that came through would lose its beginning
    data.seed=0 # every variant sees the same prompts in the same order
)
if [[ ${NAME} == qwen3* ]]; then
    # A title, a review or a recommendation needs no chain of thought.
    DATA+=(+data.apply_chat_template_kwargs.enable_thinking="${ENABLE_THINKING:-False}")
fi

ACTOR=(
    actor_rollout_ref.model.path="${MODEL_PATH}"
    actor_rollout_ref.model.use_remove_padding=True
    actor_rollout_ref.model.enable_gradient_checkpointing=True
    actor_rollout_ref.nccl_timeout="${NCCL_TIMEOUT}"
    actor_rollout_ref.actor.optim.lr="${ACTOR_LR}"
    actor_rollout_ref.actor.ppo_mini_batch_size="${PPO_MINI_BATCH_SIZE}"
    actor_rollout_ref.actor.use_dynamic_bsz=True
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu="${MAX_TOKENS_PER_GPU}"
    actor_rollout_ref.actor.use_kl_loss=True
    actor_rollout_ref.actor.kl_loss_coef="${KL_LOSS_COEF}"
    actor_rollout_ref.actor.kl_loss_type=low_var_kl
    actor_rollout_ref.actor.entropy_coeff=0
)

# What trains it. The group `model_engine` must come first: the keys of the chosen engine exist only with it.
case "${ENGINE}" in
fsdp)
    ENGINE_ARGUMENTS=(
        actor_rollout_ref.actor.fsdp_config.param_offload="${OFFLOAD}"
        actor_rollout_ref.actor.fsdp_config.optimizer_offload="${OFFLOAD}"
    )
    ;;
megatron)
    MEGATRON=actor_rollout_ref.actor.megatron
    ENGINE_ARGUMENTS=(
        model_engine=megatron
        ${MEGATRON}.tensor_model_parallel_size="${TP:-1}"
        ${MEGATRON}.pipeline_model_parallel_size="${PP:-1}"
        ${MEGATRON}.context_parallel_size="${CP:-1}"
        ${MEGATRON}.expert_model_parallel_size="${EP:-1}"
        # Without it Megatron would cut experts by TP, and they are narrow.
        ${MEGATRON}.expert_tensor_parallel_size="${ETP:-1}"
        ${MEGATRON}.param_offload="${OFFLOAD}"
        ${MEGATRON}.optimizer_offload="${OFFLOAD}"
        # Each layer is computed a second time for its gradients: a third more work for memory that makes room for
        # longer responses.
        ${MEGATRON}.override_transformer_config.recompute_granularity=full
        ${MEGATRON}.override_transformer_config.recompute_method=uniform
        ${MEGATRON}.override_transformer_config.recompute_num_layers=1
        # The reference model takes the actor's parallel sizes (verl's defaults). It works for a moment in each step.
        actor_rollout_ref.ref.megatron.param_offload=True
        # Megatron's overlap of communication wants one queue before Blackwell; verl sets it only if the machine that
        # launches has a GPU.
        '+ray_kwargs.ray_init.runtime_env.env_vars.CUDA_DEVICE_MAX_CONNECTIONS="1"'
    )
    if [ -n "${FIRST_STAGE_LAYERS:-}" ]; then
        ENGINE_ARGUMENTS+=(
            +${MEGATRON}.override_transformer_config.num_layers_in_first_pipeline_stage="${FIRST_STAGE_LAYERS}"
            +${MEGATRON}.override_transformer_config.num_layers_in_last_pipeline_stage="${LAST_STAGE_LAYERS}"
        )
    fi
    ;;
*)
    echo "ENGINE=${ENGINE}: fsdp or megatron" >&2
    exit 2
    ;;
esac

ROLLOUT=(
    actor_rollout_ref.rollout.name=vllm
    actor_rollout_ref.rollout.n="${ROLLOUT_N}"
    actor_rollout_ref.rollout.tensor_model_parallel_size="${ROLLOUT_TP}"
    actor_rollout_ref.rollout.data_parallel_size="${ROLLOUT_DP:-1}"
    actor_rollout_ref.rollout.expert_parallel_size="${ROLLOUT_EP:-1}"
    actor_rollout_ref.rollout.gpu_memory_utilization="${ROLLOUT_UTILIZATION}"
    actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True
    actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu="${MAX_TOKENS_PER_GPU}"
    actor_rollout_ref.ref.log_prob_use_dynamic_bsz=True
    actor_rollout_ref.ref.log_prob_max_token_len_per_gpu="${MAX_TOKENS_PER_GPU}"
)

TRAINER=(
    "${METRICS[@]}"
    trainer.project_name="${TASK}"
    trainer.experiment_name="${EXPERIMENT}"
    trainer.default_local_dir="${RUN_DIR}/checkpoints"
    trainer.rollout_data_dir="${RUN_DIR}/rollouts" # what the report reads
    trainer.n_gpus_per_node="${TRAIN_NGPUS_PER_NODE}"
    trainer.nnodes="${TRAIN_NNODES}"
    trainer.save_freq="${SAVE_FREQ}"
    trainer.max_actor_ckpt_to_keep="${KEEP_CHECKPOINTS}"
    trainer.test_freq=10
    trainer.total_epochs="${TOTAL_EPOCHS}"
)

python3 -m verl.trainer.main_ppo \
    "${ENGINE_ARGUMENTS[@]}" \
    "${METHOD[@]}" \
    "${DATA[@]}" \
    "${ACTOR[@]}" \
    "${ROLLOUT[@]}" \
    "${TRAINER[@]}" \
    "${MODE_ARGUMENTS[@]}" \
    "$@"
