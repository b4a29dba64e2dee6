# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""verl's Megatron engine on a CPU: unmodified megatron-core, Megatron-Bridge and verl, over gloo.

For tests and demos of the parallel logic: tensor, sequence and pipeline parallelism, the distributed optimizer,
checkpoints, the weight sync. It does not cover GPU kernels, NCCL or their overlap.

Active only in processes that train with Megatron: vLLM in the same run would mistake the changes to torch
(`fake_cuda.py`) for a GPU.
"""

import functools
import importlib
import logging
import os
import sys
import types
from typing import Any

import wrapt

from verl_cpu import fake_cuda, transformer_engine

ENGINE = "verl.workers.engine.megatron"


def install() -> None:
    """Keep Megatron out of all processes except those that train with it."""
    # verl imports all its engines wherever it needs one, and treats an ImportError as "not installed".
    sys.modules.setdefault(ENGINE, None)  # type: ignore[arg-type]
    wrapt.when_imported("verl.workers.engine_workers")(prepare_training_workers)


def prepare_training_workers(module: types.ModuleType) -> None:
    """Hook `TrainingWorker.__init__`, where a process learns its engine, just before verl imports its engines."""
    worker = module.TrainingWorker
    stock = worker.__init__

    # A plain function, not a wrapt proxy: Ray pickles worker classes, and proxies cannot be pickled.
    @functools.wraps(stock)
    def __init__(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        if getattr(config.engine_config, "strategy", None) == "megatron":
            prepare()
            importlib.import_module(ENGINE)
        stock(self, config, *args, **kwargs)

    worker.__init__ = __init__


def prepare() -> None:
    """Permanently prepare this process to run Megatron on the CPU, before it imports Megatron. Idempotent."""
    from verl.plugin.platform import get_platform

    get_platform()  # chosen once per process; must see torch before the changes below
    fake_cuda.install()
    transformer_engine.install()
    if ENGINE in sys.modules and sys.modules[ENGINE] is None:
        del sys.modules[ENGINE]
    # Without it, Megatron warns about GPUs older than the fake one.
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    # It warns if the device's generator is the CPU's, which is always true here.
    logging.getLogger("megatron.core.tensor_parallel.random").setLevel(logging.ERROR)
