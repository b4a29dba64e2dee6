# shellcheck shell=bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# Shared by the scripts that train SmolLM2-135M-Instruct on a CPU. Creates the model if it is missing. Other variables:
# recipes/_cpu.sh.
#
#   THREADS     of each process (default: all cores)
#   SAVE_FREQ   steps between checkpoints (default: 20). A checkpoint takes 1.6 GB; the last two are kept
CPU_PRESET=cpu_135m
LR=${LR:-2e-5}
SAVE_FREQ=${SAVE_FREQ:-20}
TEST_FREQ=${TEST_FREQ:--1}
TIMEOUT=${TIMEOUT:-5400}
if [ -z "${MODEL_PATH:-}" ]; then
    MODEL_PATH=runs/models/SmolLM2-135M-Instruct
    create_model() {
        "${PYTHON:-python3}" recipes/personas/make_smollm2.py "${MODEL_PATH}"
    }
fi

# The script's own arguments stay last, so they win.
set -- trainer.max_actor_ckpt_to_keep=2 \
    "ray_kwargs.ray_init.runtime_env.env_vars.OMP_NUM_THREADS='${THREADS:-$(nproc)}'" "$@"
if ! grep -qE 'avx512_bf16|amx_bf16' "${CPUINFO:-/proc/cpuinfo}"; then # bfloat16 would be emulated
    set -- actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=fp32 \
        actor_rollout_ref.rollout.dtype=float32 "$@"
fi

source recipes/_cpu.sh
