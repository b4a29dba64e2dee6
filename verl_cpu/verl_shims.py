# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Shims for code that verl's platform interface does not cover on a CPU, except the weight sync (`weight_sync.py`)."""

import os
import secrets
import sys
import tempfile
import traceback
import types
from pathlib import Path
from typing import Any

import wrapt

from verl_cpu import RUN_ID
from verl_cpu.processes import ERROR, LOCK


def install() -> None:
    """Register all shims of this module to run when their targets are imported."""
    if os.environ.get(RUN_ID):
        wrapt.when_imported("multiprocessing.shared_memory")(name_shared_memory_by_run)
    folder = Path(tempfile.gettempdir())
    if (folder / LOCK).exists() and "RAY_RAYLET_PID" not in os.environ:  # the main process of a launcher's run
        keep_uncaught_errors(folder / ERROR)
    wrapt.when_imported("verl.utils.distributed")(name_gloo_once)
    wrapt.when_imported("verl.single_controller.ray.base")(choose_ports_outside_the_ephemeral_range)
    wrapt.when_imported("verl.utils.fsdp_utils")(copy_saved_weights)
    wrapt.when_imported("torch.distributed.fsdp")(do_not_pin_memory)


def name_shared_memory_by_run(module: types.ModuleType) -> None:
    """Put the run's id into the names of Python's shared memory, which a killed run leaves behind."""
    module._SHM_NAME_PREFIX = f"/{os.environ[RUN_ID]}_"[:10]  # type: ignore[attr-defined]  # the maximum length


def keep_uncaught_errors(path: Path) -> None:
    """Write an error that ends this process to a file. The launcher prints it last, after the logs of Ray's workers."""
    stock = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        stock(kind, error, trace)
        if isinstance(error, Exception):
            path.write_text("".join(traceback.format_exception_only(error)))

    sys.excepthook = hook


def name_gloo_once(module: types.ModuleType) -> None:
    """Name the backend `cpu:gloo`; verl's default becomes `cpu:gloo,cpu:gloo` here, which torch rejects."""

    @wrapt.patch_function_wrapper(module, "initialize_global_process_group_ray")
    def initialize(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
        if len(args) < 2 and kwargs.get("backend") is None:
            kwargs["backend"] = "cpu:gloo"
        return wrapped(*args, **kwargs)


def choose_ports_outside_the_ephemeral_range(module: types.ModuleType) -> None:
    """Choose rank 0's port below the ephemeral range.

    verl asks the system for a free port, and rank 0 binds it seconds later. Until then the system may give any other
    connection the same port, and with several runs one of them occasionally fails with "address already in use".
    """

    @wrapt.patch_function_wrapper(module, "RayWorkerGroup._get_master_addr_port")
    def get_master_addr_port(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
        def call(pg: Any, bundle_index: int = 0, master_port_range: list[int] | None = None) -> Any:
            if master_port_range is None:
                end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
                start = end // 2
                master_port_range = [start + secrets.randbelow(max(1, (end - start) // 2)), end]
            return wrapped(pg, bundle_index, master_port_range)

        return call(*args, **kwargs)


def copy_saved_weights(module: types.ModuleType) -> None:
    """Copy the old policy's weights. `separate_async` keeps them with `.cpu()`, which on a CPU copies nothing."""

    @wrapt.patch_function_wrapper(module, "fsdp2_sharded_save_to_cpu")
    def save(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
        state, spec = wrapped(*args, **kwargs)
        return {name: (tensor.clone(), own_spec) for name, (tensor, own_spec) in state.items()}, spec


def do_not_pin_memory(module: types.ModuleType) -> None:
    """Offload a reference model to ordinary memory; pinned memory needs an accelerator's driver."""

    @wrapt.patch_function_wrapper(module, "CPUOffloadPolicy.__init__")
    def init(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> None:
        wrapped(pin_memory=False)
