# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""verl's Megatron engine on a CPU: unmodified megatron-core, Megatron-Bridge and verl, over gloo.

For tests and demos of the parallel logic: tensor, sequence and pipeline parallelism, the distributed optimizer,
checkpoints, the weight sync. It shows nothing about GPU kernels, NCCL or the overlap of the two.

Active only in processes that train with Megatron: vLLM, which is part of the same run, would take the changes to torch
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
    """Keep Megatron out of all processes but those that turn out to train with it."""
    # verl imports all of its engines wherever it needs one of them, and takes an ImportError for 'not installed'.
    sys.modules.setdefault(ENGINE, None)  # type: ignore[arg-type]
    wrapt.when_imported("verl.workers.engine_workers")(prepare_training_workers)


def prepare_training_workers(module: types.ModuleType) -> None:
    """Hook `TrainingWorker.__init__`, where a process learns its engine, just before verl imports its engines."""
    worker = module.TrainingWorker
    stock = worker.__init__

    # A plain function and no wrapt proxy: Ray pickles worker classes, and proxies cannot be pickled.
    @functools.wraps(stock)
    def __init__(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        if getattr(config.engine_config, "strategy", None) == "megatron":
            prepare()
            importlib.import_module(ENGINE)
        stock(self, config, *args, **kwargs)

    worker.__init__ = __init__


def prepare() -> None:
    """Make this process able to run Megatron on the CPU, for good, before it imports Megatron. Idempotent."""
    from verl.plugin.platform import get_platform

    get_platform()  # chosen once in a process, and by what torch answers before the following
    fake_cuda.install()
    transformer_engine.install()
    if ENGINE in sys.modules and sys.modules[ENGINE] is None:
        del sys.modules[ENGINE]
    # Megatron warns without it, about GPUs older than the fake one.
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    # It warns whenever the device's generator was the CPU's, which here it always is.
    logging.getLogger("megatron.core.tensor_parallel.random").setLevel(logging.ERROR)
