# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The parts of torch.cuda that Megatron uses, on the CPU. Only for Megatron training workers.

Megatron names the device `cuda` in hundreds of places and has no interface for another. Here the name means the CPU:
tensors are created there, streams do nothing, and the generator is the default one. `torch.cuda.is_available()` stays
False, so code that checks first sees that there is no GPU.
"""

import functools
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch

CPU = torch.device("cpu")


def install() -> None:
    """Make `cuda` mean the CPU in this process, for good. Idempotent."""
    if getattr(torch.cuda, "_verl_cpu", False):
        return
    torch.cuda._verl_cpu = True  # type: ignore[attr-defined]
    create_tensors_on_cpu()
    fake_device_functions()
    share_default_generator()
    fake_streams()
    fake_tensor_type_names()
    scatter_contiguous_tensors()
    convert_split_sizes()


def _on_cpu(device: Any) -> Any:
    """Return the CPU for anything that names a cuda device, and anything else unchanged."""
    if isinstance(device, int) and not isinstance(device, bool):
        return CPU
    return CPU if isinstance(device, (str, torch.device)) and str(device).startswith("cuda") else device


def create_tensors_on_cpu() -> None:
    """Make `torch.empty(..., device="cuda")`, `.to("cuda")` and `.cuda()` mean the CPU.

    torch keeps a set of the functions that `with torch.device("meta")` affects, and fills it at first use. The set must
    be filled before the functions are replaced. Otherwise it would contain our replacements, which torch never sees,
    and models that HF loads through the meta device would silently keep uninitialized buffers.
    """
    from torch.utils._device import _device_constructors

    constructors = [function.__name__ for function in _device_constructors()]  # fills the set
    like = ["empty_like", "full_like", "ones_like", "zeros_like", "rand_like", "randn_like", "randint_like"]

    def wrap(function: Callable) -> Callable:
        @functools.wraps(function)
        def make(*args: Any, **kwargs: Any) -> torch.Tensor:
            if kwargs.get("device") is not None:
                kwargs["device"] = _on_cpu(kwargs["device"])
            if kwargs.get("pin_memory"):  # only a driver can pin
                kwargs["pin_memory"] = False
            return function(*args, **kwargs)

        return make

    for name in [*constructors, *like]:
        if hasattr(torch, name):
            setattr(torch, name, wrap(getattr(torch, name)))

    stock_to = torch.Tensor.to

    @functools.wraps(stock_to)
    def to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if "device" in kwargs:
            kwargs["device"] = _on_cpu(kwargs["device"])
        return stock_to(self, *map(_on_cpu, args[:1]), *args[1:], **kwargs)

    torch.Tensor.to = to  # type: ignore[method-assign, assignment]
    torch.Tensor.cuda = lambda self, *args, **kwargs: self  # type: ignore[method-assign]
    torch.Tensor.pin_memory = lambda self, *args, **kwargs: self  # type: ignore[method-assign]


def fake_device_functions() -> None:
    """Replace the functions that query or control the device. Memory is 0; verl gets it from its platform."""

    def nothing(*args: Any, **kwargs: Any) -> None:
        return None

    def zero(device: Any = None) -> int:
        return 0

    torch.cuda.__dict__.update(
        # Explicit: with a CUDA build of torch the stock function may use the fake below to count devices.
        is_available=lambda: False,
        current_device=lambda: CPU,  # only ever used as a device
        device_count=lambda: 1,
        device=lambda device: nullcontext(),
        get_device_capability=lambda device=None: (8, 0),  # has bfloat16, and nothing newer
        get_device_properties=lambda device=None: SimpleNamespace(
            name="CPU", major=8, minor=0, multi_processor_count=1, total_memory=0
        ),
        memory_allocated=zero,
        memory_reserved=zero,
        max_memory_allocated=zero,
        max_memory_reserved=zero,
        set_device=nothing,
        synchronize=nothing,
        empty_cache=nothing,
        ipc_collect=nothing,
        reset_peak_memory_stats=nothing,
        init=nothing,
        _lazy_init=nothing,
        _lazy_call=lambda call, **kwargs: call(),
    )


def share_default_generator() -> None:
    """Make the device's generator the default one, so Megatron forks and saves the one that torch draws from."""

    class Generators:
        def __getitem__(self, device: Any) -> torch.Generator:
            return torch.default_generator

    def manual_seed(seed: int) -> None:
        torch.default_generator.manual_seed(int(seed))  # not torch.manual_seed, which calls this

    for module in (torch.cuda, torch.cuda.random):
        module.__dict__.update(
            default_generators=Generators(),
            get_rng_state=lambda device=None: torch.get_rng_state(),
            set_rng_state=lambda state, device=None: torch.set_rng_state(state),
            manual_seed=manual_seed,
            manual_seed_all=manual_seed,
        )


def fake_streams() -> None:
    """Replace streams and events by no-ops; work on a CPU is done when a call returns."""

    class Stream:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            pass

        def __enter__(self) -> "Stream":
            return self

        def __exit__(self, *args: Any) -> None:
            pass

        def query(self) -> bool:
            return True

        def record(self, *args: Any) -> None:
            pass

        def elapsed_time(self, end: Any) -> float:
            return 0.0

        wait_event = wait_stream = wait = synchronize = record

        def record_event(self, event: Any = None) -> Any:
            return event or Stream()

    for name in ("Stream", "Event"):
        setattr(torch.cuda, name, Stream)
    for name in ("current_stream", "default_stream", "stream"):
        setattr(torch.cuda, name, lambda *args, **kwargs: Stream())
    for name in ("range_push", "range_pop", "mark"):
        setattr(torch.cuda.nvtx, name, lambda *args, **kwargs: None)


def fake_tensor_type_names() -> None:
    """Report tensor types as `torch.cuda.FloatTensor` etc., because Megatron's optimizers group parameters by them."""
    stock_type = torch.Tensor.type

    @functools.wraps(stock_type)
    def type_(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if not args and not kwargs:
            return f"torch.cuda.{stock_type(self).removeprefix('torch.')}"
        names = [name.replace("torch.cuda.", "torch.") if isinstance(name, str) else name for name in args]
        return stock_type(self, *names, **kwargs)  # type: ignore[arg-type]

    torch.Tensor.type = type_  # type: ignore[method-assign, assignment]


def scatter_contiguous_tensors() -> None:
    """Make the inputs of scatter contiguous; gloo sends their memory as if they already were.

    Megatron-Bridge splits row-parallel weights along their columns, so half of each would silently arrive wrong.
    """
    stock_scatter = torch.distributed.scatter

    @functools.wraps(stock_scatter)
    def scatter(tensor: torch.Tensor, scatter_list: Any = None, *args: Any, **kwargs: Any) -> Any:
        if scatter_list is not None:
            scatter_list = [part.contiguous() for part in scatter_list]
        return stock_scatter(tensor, scatter_list, *args, **kwargs)

    torch.distributed.scatter = scatter


def convert_split_sizes() -> None:
    """Convert the split sizes of experts' all-to-all to lists; Megatron copies them to the host only from a GPU."""
    stock_exchange = torch.distributed.all_to_all_single

    @functools.wraps(stock_exchange)
    def all_to_all_single(output: torch.Tensor, input: torch.Tensor, *splits: Any, **kwargs: Any) -> Any:
        kwargs = {name: _plain(value) if name.endswith("split_sizes") else value for name, value in kwargs.items()}
        return stock_exchange(output, input, *map(_plain, splits), **kwargs)

    torch.distributed.all_to_all_single = all_to_all_single


def _plain(numbers: Any) -> Any:
    return numbers.tolist() if isinstance(numbers, torch.Tensor) else numbers
