# shellcheck shell=bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# Shared by the GPU scripts. Each script sets what its model needs and sources this file, which launches verl. Every
# variable can be set in the environment; any verl key can follow the script's name as an argument.
#
#   TASK        personas (default), movielens, goodreads: sizes from recipes/TASK/task.sh; or a task of your own
#   DATA_DIR    contains train.parquet and val.parquet
#   MODEL_PATH  a Hugging Face name or a folder; on several nodes a folder that all of them see
#   ESTIMATOR, PGRPO_OPTIONS, RANDOM_GROUPS, EQUAL_GROUPS, JUDGE, REWARD
#               method, controls and reward: recipes/_method.sh
#   RUN_DIR     results. The default name depends on the script, TASK, MODE, ROLLOUT_N, the method and the judge. Set it
#               if you change anything else (REWARD, MODEL_PATH, ACTOR_LR): verl resumes from any checkpoint there
#   MODE        sync (default): all GPUs generate, then all train
#               separate_async: half of the GPUs train while the other half generates with slightly older weights
#   NNODES, NGPUS_PER_NODE    all GPUs of the run in either mode (a judge needs more)
#   LAUNCH      gets the arguments instead of verl: "verl-pgrpo doctor --" or "verl-pgrpo preflight --"
#
# Set lengths and batch sizes by variable, not by verl key: other settings are computed from them. Sizes are explained in
# recipes/TASK/README.md, memory and differences from verl's examples in recipes/large_models.md.

TASK=${TASK:-personas}
MODE=${MODE:-sync}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-8}

RECIPES=$(dirname "${BASH_SOURCE[0]}")
if [ -f "${RECIPES}/${TASK}/task.sh" ]; then
    source "${RECIPES}/${TASK}/task.sh"
fi
source "${RECIPES}/_method.sh"
if [ -n "${JUDGE}" ]; then
    METHOD+=(reward.reward_model.rollout.gpu_memory_utilization=0.85) # nothing else runs on the judge's GPUs
fi

# Defaults for everything that the task and the model do not set.
DATA_DIR=${DATA_DIR:-data/${TASK}}
# Two responses per prompt: P-GRPO does not normalize within a prompt, so more prompts help more than more
# responses. For GRPO at its best set ROLLOUT_N=8: the same number of responses per step, a quarter of the prompts.
ROLLOUT_N=${ROLLOUT_N:-2}
# 1024 responses per step in two updates. A preference group of 1 % then adds ten rewards per step to its history.
PPO_MINI_BATCH_SIZE=${PPO_MINI_BATCH_SIZE:-$((512 / ROLLOUT_N))}
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-$((PPO_MINI_BATCH_SIZE * ${PARAMETER_SYNC_STEP:-2}))}
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-512}
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-256}
ACTOR_LR=${ACTOR_LR:-1e-6}
# Keeps the policy close to the initial model, because it could learn to exploit the rules or the judge.
KL_LOSS_COEF=${KL_LOSS_COEF:-0.001}
TOTAL_EPOCHS=${TOTAL_EPOCHS:-1}
SAVE_FREQ=${SAVE_FREQ:-20}
KEEP_CHECKPOINTS=${KEEP_CHECKPOINTS:-null}
EXPERIMENT=${EXPERIMENT:-${NAME}_${MODE}_${VARIANT}_n${ROLLOUT_N}}
RUN_DIR=${RUN_DIR:-runs/${TASK}/${EXPERIMENT}}
log_metrics
choose_train_file

case "${MODE}" in
sync)
    TRAIN_NNODES=${NNODES}
    TRAIN_NGPUS_PER_NODE=${NGPUS_PER_NODE}
    ROLLOUT_UTILIZATION=${ROLLOUT_UTILIZATION:-${SYNC_UTILIZATION}}
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
    # As in verl's CI. Each weight sync needs three buckets in addition to vLLM's share: two to receive, one to load.
    ROLLOUT_UTILIZATION=${ROLLOUT_UTILIZATION:-${ASYNC_UTILIZATION:-0.6}}
    OFFLOAD=${OFFLOAD:-False} # verl's copies of the policy between two weight syncs expect it on the GPU
    MODE_ARGUMENTS=(
        trainer.v1.trainer_mode=separate_async
        trainer.v1.separate_async.parameter_sync_step="${PARAMETER_SYNC_STEP:-$((TRAIN_BATCH_SIZE / PPO_MINI_BATCH_SIZE))}"
        data.gen_batch_size=1 # prompts that are too old are replaced one by one
        actor_rollout_ref.rollout.nnodes="${ROLLOUT_NNODES}"
        actor_rollout_ref.rollout.n_gpus_per_node="${ROLLOUT_NGPUS_PER_NODE}"
        actor_rollout_ref.rollout.checkpoint_engine.backend="${CHECKPOINT_ENGINE:-nccl}" # nccl needs cupy
        # No second vLLM on the training GPUs: it would need their memory, and everything offloaded for it.
        actor_rollout_ref.hybrid_engine=False
        # With hybrid_engine=False verl 0.9.1 raises TypeError on a log message of level INFO.
        +ray_kwargs.ray_init.runtime_env.env_vars.VERL_LOGGING_LEVEL=WARN
    )
    ;;
*)
    echo "MODE=${MODE}: must be sync or separate_async" >&2
    exit 2
    ;;
esac

DATA=(
    algorithm.use_kl_in_reward=False
    data.train_files="$(quoted "${TRAIN_FILE}")"
    data.val_files="$(quoted "${DATA_DIR}/val.parquet")"
    data.train_batch_size="${TRAIN_BATCH_SIZE}"
    data.max_prompt_length="${MAX_PROMPT_LENGTH}"
    data.max_response_length="${MAX_RESPONSE_LENGTH}"
    data.filter_overlong_prompts=True # a longer prompt would be truncated at its start
    data.seed=0 # all variants see the same prompts in the same order
)
if [[ ${NAME} == qwen3* ]]; then
    # A title, a review or a recommendation needs no chain of thought.
    DATA+=(+data.apply_chat_template_kwargs.enable_thinking="${ENABLE_THINKING:-False}")
fi

ACTOR=(
    actor_rollout_ref.model.path="$(quoted "${MODEL_PATH}")"
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

# `model_engine` must come first: the keys of an engine exist only after it is chosen.
case "${ENGINE}" in
fsdp)
    ENGINE_ARGUMENTS=(
        # FSDP2: what the CPU tests run, and the faster weight sync (verl, delta_weight_sync.md, Qwen3-8B: 39 s, FSDP1 65 s).
        actor_rollout_ref.actor.strategy=fsdp2
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
        ${MEGATRON}.expert_tensor_parallel_size="${ETP:-1}" # Megatron's default is TP, and experts are narrow
        ${MEGATRON}.param_offload="${OFFLOAD}"
        ${MEGATRON}.optimizer_offload="${OFFLOAD}"
        # A third more compute, in return for memory for longer responses.
        ${MEGATRON}.override_transformer_config.recompute_granularity=full
        ${MEGATRON}.override_transformer_config.recompute_method=uniform
        ${MEGATRON}.override_transformer_config.recompute_num_layers=1
        actor_rollout_ref.ref.megatron.param_offload=True # needed for a moment in each step
        # Required by Megatron's communication overlap before Blackwell. verl sets it only if the launching machine has a GPU.
        '+ray_kwargs.ray_init.runtime_env.env_vars.CUDA_DEVICE_MAX_CONNECTIONS="1"'
    )
    if [ -n "${FIRST_STAGE_LAYERS:-}" ]; then
        ENGINE_ARGUMENTS+=(
            +${MEGATRON}.override_transformer_config.num_layers_in_first_pipeline_stage="${FIRST_STAGE_LAYERS}"
            +${MEGATRON}.override_transformer_config.num_layers_in_last_pipeline_stage="${LAST_STAGE_LAYERS}"
        )
    fi
    if [ "${MOE:-False}" = True ]; then
        ENGINE_ARGUMENTS+=(
            # As in verl's MoE examples: in bfloat16, rounding would decide near-ties between experts.
            +${MEGATRON}.override_transformer_config.moe_router_dtype=fp32
            # verl loads weights into the live kernel's tensors; only Triton's have the checkpoint layout (verl#7978).
            +actor_rollout_ref.rollout.engine_kwargs.vllm.moe_backend=triton
        )
    fi
    ;;
*)
    echo "ENGINE=${ENGINE}: must be fsdp or megatron" >&2
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
    # Unset, vLLM reserves cache for the model's longest context: 40,960 tokens for Qwen3.
    actor_rollout_ref.rollout.max_model_len=$((MAX_PROMPT_LENGTH + MAX_RESPONSE_LENGTH))
    actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True
    actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu="${MAX_TOKENS_PER_GPU}"
    actor_rollout_ref.ref.log_prob_use_dynamic_bsz=True
    actor_rollout_ref.ref.log_prob_max_token_len_per_gpu="${MAX_TOKENS_PER_GPU}"
)
if [ -n "${BUCKET_MB:-}" ]; then
    # vLLM 0.29 and later need tied embeddings in one bucket, and verl sends one first and the other last.
    ROLLOUT+=(actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes="${BUCKET_MB}")
fi

TRAINER=(
    "${METRICS[@]}"
    trainer.project_name="${TASK}"
    trainer.experiment_name="${EXPERIMENT}"
    trainer.default_local_dir="$(quoted "${RUN_DIR}/checkpoints")"
    trainer.rollout_data_dir="$(quoted "${RUN_DIR}/rollouts")" # read by verl-pgrpo report
    trainer.n_gpus_per_node="${TRAIN_NGPUS_PER_NODE}"
    trainer.nnodes="${TRAIN_NNODES}"
    trainer.save_freq="${SAVE_FREQ}"
    trainer.max_actor_ckpt_to_keep="${KEEP_CHECKPOINTS}"
    trainer.test_freq=10
    trainer.total_epochs="${TOTAL_EPOCHS}"
)

${LAUNCH:-python3 -m verl.trainer.main_ppo} \
    "${ENGINE_ARGUMENTS[@]}" \
    "${METHOD[@]}" \
    "${DATA[@]}" \
    "${ACTOR[@]}" \
    "${ROLLOUT[@]}" \
    "${TRAINER[@]}" \
    "${MODE_ARGUMENTS[@]}" \
    "$@"
