# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""torch.cuda on the CPU, as far as Megatron asks for it; for tests and demos, only in Megatron training workers.

Megatron names the device `cuda` in hundreds of places and has no interface for another. Here the name means the CPU:
tensors are made there, streams do nothing, and the generator is the default one. `torch.cuda.is_available()` stays
False, so that whoever asks first is told the truth.
"""

import functools
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch

CPU = torch.device("cpu")


def pretend_cuda() -> None:
    """Let this process use the CPU under the name of cuda, for good. A second call does nothing."""
    if getattr(torch.cuda, "_verl_cpu", False):
        return
    torch.cuda._verl_cpu = True  # type: ignore[attr-defined]
    place_cuda_tensors_on_the_cpu()
    answer_for_the_device()
    share_the_default_generator()
    let_streams_do_nothing()
    call_float_tensors_cuda()
    scatter_contiguous_tensors()
    exchange_by_plain_numbers()


def _on_cpu(device: Any) -> Any:
    """The CPU for anything that names a cuda device, and anything else as it is."""
    if isinstance(device, int) and not isinstance(device, bool):
        return CPU
    return CPU if isinstance(device, (str, torch.device)) and str(device).startswith("cuda") else device


def place_cuda_tensors_on_the_cpu() -> None:
    """`torch.empty(..., device="cuda")`, `.to("cuda")`, `.cuda()`.

    torch keeps a set of the functions that `with torch.device("meta")` acts on, and fills it when first asked. It has
    to be filled before they are replaced: afterwards it would hold ours, which torch never sees, and models that HF
    loads by way of the meta device would keep uninitialised buffers, silently.
    """
    from torch.utils._device import _device_constructors

    constructors = [function.__name__ for function in _device_constructors()]  # this is what fills it
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


def answer_for_the_device() -> None:
    """Questions about the device, and orders to it. Memory is verl's platform's business and is 0 here."""

    def nothing(*args: Any, **kwargs: Any) -> None:
        return None

    def zero(device: Any = None) -> int:
        return 0

    torch.cuda.__dict__.update(
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


def share_the_default_generator() -> None:
    """The device's generator is the default one: what Megatron forks and saves is then what is drawn from."""

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


def let_streams_do_nothing() -> None:
    """All work is done when a call returns, so there is nothing to wait for."""

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


def call_float_tensors_cuda() -> None:
    """Megatron's optimizers sort parameters by the names of their types, `torch.cuda.FloatTensor` and so on."""
    stock_type = torch.Tensor.type

    @functools.wraps(stock_type)
    def type_(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if not args and not kwargs:
            return f"torch.cuda.{stock_type(self).removeprefix('torch.')}"
        names = [name.replace("torch.cuda.", "torch.") if isinstance(name, str) else name for name in args]
        return stock_type(self, *names, **kwargs)  # type: ignore[arg-type]

    torch.Tensor.type = type_  # type: ignore[method-assign, assignment]


def scatter_contiguous_tensors() -> None:
    """gloo's scatter sends what lies in memory, whatever the strides say.

    Megatron-Bridge splits row-parallel weights along their columns, so that half of each would arrive wrong, silently.
    """
    stock_scatter = torch.distributed.scatter

    @functools.wraps(stock_scatter)
    def scatter(tensor: torch.Tensor, scatter_list: Any = None, *args: Any, **kwargs: Any) -> Any:
        if scatter_list is not None:
            scatter_list = [part.contiguous() for part in scatter_list]
        return stock_scatter(tensor, scatter_list, *args, **kwargs)

    torch.distributed.scatter = scatter


def exchange_by_plain_numbers() -> None:
    """How many tokens go to which expert's rank: numbers, once copied from the device, which here they never were."""
    stock_exchange = torch.distributed.all_to_all_single

    @functools.wraps(stock_exchange)
    def all_to_all_single(output: torch.Tensor, input: torch.Tensor, *splits: Any, **kwargs: Any) -> Any:
        kwargs = {name: _plain(value) if name.endswith("split_sizes") else value for name, value in kwargs.items()}
        return stock_exchange(output, input, *map(_plain, splits), **kwargs)

    torch.distributed.all_to_all_single = all_to_all_single


def _plain(numbers: Any) -> Any:
    return numbers.tolist() if isinstance(numbers, torch.Tensor) else numbers
