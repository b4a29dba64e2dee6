# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Run stock verl, with vLLM and Megatron, on a machine without a GPU. Every process that imports verl imports this."""

RUN_ID = "VERL_CPU_RUN_ID"
"""Environment variable with the run's id. All processes of the run inherit it, and file names contain the id."""

ENVIRONMENT = {
    # verl registers its engines for cuda and npu only; this is its own override for other platforms.
    "VERL_ENGINE_DEVICE": "cuda",
    # Compiling takes 30 s, longer than many steps of a tiny model.
    "TORCHDYNAMO_DISABLE": "1",
    # Without this vLLM's CPU build insists on a worker process in addition to its engine process. (verl uses vLLM with
    # an engine process in any case.) The presets set the executor `uni`, which requires it.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # gloo resolves the host name, which in containers often has no route.
    "GLOO_SOCKET_IFNAME": "lo",
    # A local model needs no hub; without this every process queries it, and waits where there is no network. The
    # launcher allows it if the model is not a folder.
    "HF_HUB_OFFLINE": "1",
    # TransferQueue's default of 8 is a warning per call on machines with fewer cores. The tensors are small here.
    "TQ_NUM_THREADS": "1",
}
"""Set where the user has not set them, before Ray starts its processes, which inherit them."""
