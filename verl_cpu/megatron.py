# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""verl's Megatron engine on the CPU: megatron-core, Megatron-Bridge and verl as they are, over gloo.

For tests and demos of the parallel logic - tensor, sequence and pipeline parallelism, the distributed optimizer,
checkpoints, the weight sync. Nothing here says anything about GPU kernels, NCCL or the overlap of the two.

Part of the platform `cpu` (see `cpu_platform.py`), and active only in a process that trains with Megatron: what it does
to torch (`fake_cuda.py`) would be a fake GPU to vLLM, which lives in the same run.
"""

import functools
import importlib
import logging
import os
import sys
import types
from typing import Any

from verl_cpu import fake_cuda, transformer_engine

ENGINE = "verl.workers.engine.megatron"


def keep_megatron_out() -> None:
    """Leave verl's Megatron engine, and with it half of Megatron, out of the processes that do not train with it.

    verl imports all of its engines wherever it needs one name of them, and takes an ImportError for 'not installed'.
    """
    sys.modules.setdefault(ENGINE, None)  # type: ignore[arg-type]


def prepare_training_workers(module: types.ModuleType) -> None:
    """Hook of `verl.workers.engine_workers`: prepare the process that turns out to train with Megatron.

    `TrainingWorker.__init__` is where a process learns its engine, and imports verl's engines next.
    """
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
    """Make this process able to run Megatron on the CPU, for good. Before Megatron is imported; twice is once."""
    fake_cuda.pretend_cuda()
    transformer_engine.install()
    if ENGINE in sys.modules and sys.modules[ENGINE] is None:
        del sys.modules[ENGINE]
    # Megatron warns without it, of GPUs that are older than ours is said to be.
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    # It warns whenever the device's generator was the CPU's, which here it always is.
    logging.getLogger("megatron.core.tensor_parallel.random").setLevel(logging.ERROR)
