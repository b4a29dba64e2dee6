# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Shims for what verl's platform interface does not reach on a CPU. `cpu_platform.py` hooks them to module imports."""

import os
import secrets
import tempfile
import types
from pathlib import Path
from typing import Any

import wrapt

from verl_cpu import LEDGER, RUN_ID


def name_gloo_once(module: types.ModuleType) -> None:
    """`cpu:gloo,<device>:<backend>` reads `cpu:gloo,cpu:gloo` here, which torch refuses: name the backend ourselves."""

    def wrapper(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
        if len(args) < 2 and kwargs.get("backend") is None:
            kwargs["backend"] = "cpu:gloo"
        return wrapped(*args, **kwargs)

    wrapt.wrap_function_wrapper(module, "initialize_global_process_group_ray", wrapper)


def take_ports_of_no_connection(module: types.ModuleType) -> None:
    """verl asks the system for a free port, which rank 0 binds when it has started, seconds later.

    Until then any connection of this machine may be given the same port, and of several runs one a day dies of "address
    already in use". Below the range that connections are given ports from, there is nobody but other such runs.
    """

    def wrapper(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
        def call(pg: Any, bundle_index: int = 0, master_port_range: list[int] | None = None) -> Any:
            if master_port_range is None:
                connections = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
                first = connections // 2
                master_port_range = [first + secrets.randbelow(max(1, (connections - first) // 2)), connections]
            return wrapped(pg, bundle_index, master_port_range)

        return call(*args, **kwargs)

    wrapt.wrap_function_wrapper(module, "RayWorkerGroup._get_master_addr_port", wrapper)


def name_sockets_by_run(module: types.ModuleType) -> None:
    """Put the run's id into the path of the socket that weights travel by.

    verl makes it unique by Ray's job id, which is the same in every private Ray cluster: of two runs on one machine
    the second takes the first's socket away, and one may even load the other's weights.
    """

    def wrapper(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
        def call(zmq_handle: str, *args: Any, **kwargs: Any) -> Any:
            if run := os.environ.get(RUN_ID):
                zmq_handle = zmq_handle.replace("rl-colocate-zmq-", f"rl-colocate-zmq-{run}-", 1)
            return wrapped(zmq_handle, *args, **kwargs)

        return call(*args, **kwargs)

    wrapt.wrap_function_wrapper(module, "BucketedWeightSender.__init__", wrapper)
    wrapt.wrap_function_wrapper(module, "BucketedWeightReceiver.__init__", wrapper)


def note_segments(module: types.ModuleType) -> None:
    """Write down which shared memory a weight sync makes: of a run that was killed, nothing else would tell."""

    def wrapper(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
        def call(size: int, name: str) -> Any:
            ledger = Path(tempfile.gettempdir()) / LEDGER
            if RUN_ID in os.environ and ledger.is_dir():  # it is not where nobody supervises the run
                (ledger / name).touch()
            return wrapped(size, name)

        return call(*args, **kwargs)

    wrapt.wrap_function_wrapper(module, "create_shared_memory", wrapper)


def copy_what_is_set_aside(module: types.ModuleType) -> None:
    """`separate_async` sets the old policy aside by `.cpu()`, which copies nothing here: it would go on training."""

    def wrapper(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
        state, spec = wrapped(*args, **kwargs)
        return {name: (tensor.clone(), own_spec) for name, (tensor, own_spec) in state.items()}, spec

    wrapt.wrap_function_wrapper(module, "fsdp2_sharded_save_to_cpu", wrapper)


def do_not_pin_memory(module: types.ModuleType) -> None:
    """verl offloads a reference model to pinned memory, which only an accelerator's driver can give."""

    def wrapper(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
        return wrapped(pin_memory=False)

    wrapt.wrap_function_wrapper(module, "CPUOffloadPolicy.__init__", wrapper)
