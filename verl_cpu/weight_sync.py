# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Shims for verl's weight sync from a trainer to vLLM, which on a CPU uses a socket and shared memory.

None of these problems is specific to CPUs: two runs on one machine share the socket; a receiver that fails hides its
error and leaves the sender waiting forever; vLLM 0.29 and later reject tied weights that arrive in different buckets.
"""

import os
import types
from contextvars import ContextVar
from typing import Any

import wrapt

from verl_cpu import RUN_ID

_receiving: ContextVar[Any] = ContextVar("receiving", default=None)
"""vLLM's call that receives the weights which this task sends, as a concurrent.futures.Future."""


def install() -> None:
    """Register all shims of this module to run when their targets are imported."""
    rollout = "verl.workers.rollout.vllm_rollout"
    if os.environ.get(RUN_ID):
        wrapt.when_imported(f"{rollout}.bucketed_weight_transfer")(name_transfers_by_run)
    wrapt.when_imported(f"{rollout}.bucketed_weight_transfer")(end_failed_transfers)
    wrapt.when_imported(f"{rollout}.vllm_rollout")(remember_receiver)
    wrapt.when_imported(f"{rollout}.utils")(accept_tied_weights)


def name_transfers_by_run(module: types.ModuleType) -> None:
    """Put the run's id into the names of a transfer's socket and shared memory.

    verl makes the socket's path unique by Ray's job id, which is the same in every private Ray cluster: if two runs
    share a machine, the second removes the first's socket, and one may even load the other's weights.
    """
    run = os.environ[RUN_ID]
    create, rebuild = module.create_shared_memory, module.rebuild_shared_memory
    module.create_shared_memory = lambda size, name: create(size, f"{run}_{name}")  # type: ignore[attr-defined]
    module.rebuild_shared_memory = lambda name, *args, **kwargs: rebuild(f"{run}_{name}", *args, **kwargs)  # type: ignore[attr-defined]

    def init(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> None:
        wrapped(*args, **kwargs)
        instance.zmq_handle = instance.zmq_handle.replace("rl-colocate-zmq-", f"rl-colocate-zmq-{run}-", 1)

    for name in ("BucketedWeightSender", "BucketedWeightReceiver"):
        wrapt.wrap_function_wrapper(module, f"{name}.__init__", init)


def end_failed_transfers(module: types.ModuleType) -> None:
    """Raise the receiver's error in the receiver and in the sender."""

    @wrapt.patch_function_wrapper(module, "BucketedWeightReceiver.receive_weights")
    def receive_weights(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> None:
        try:
            wrapped(*args, **kwargs)
        except Exception as error:
            # The cleanup raises this error because the first error's traceback still holds the buffer.
            first = error.__context__ if isinstance(error, BufferError) and error.__context__ else error
            # vLLM forwards only the message.
            raise RuntimeError(f"{type(first).__name__}: {first}") from first

    @wrapt.patch_function_wrapper(module, "BucketedWeightSender._init_socket")
    def _init_socket(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> None:
        wrapped(*args, **kwargs)
        instance.socket = _Socket(instance.socket, _receiving.get())


class _Socket:
    """The sender's ZMQ socket; its waits end when the receiver fails."""

    def __init__(self, socket: Any, receiving: Any) -> None:
        self._socket, self._receiving = socket, receiving

    def send_pyobj(self, message: Any) -> None:
        self._wait(2)  # zmq.POLLOUT
        self._socket.send_pyobj(message)

    def recv(self) -> bytes:
        self._wait(1)  # zmq.POLLIN
        return self._socket.recv()

    def close(self) -> None:
        self._socket.close(linger=0)

    def _wait(self, event: int) -> None:
        while not self._socket.poll(1000, event):
            if self._receiving is not None and self._receiving.done():
                self._receiving.result()  # raises the receiver's error


def remember_receiver(module: types.ModuleType) -> None:
    """Record vLLM's receiving call so that the sender can watch it."""

    @wrapt.patch_function_wrapper(module, "ServerAdapter._execute_method")
    async def _execute_method(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
        call = await wrapped(*args, **kwargs)
        if kwargs.get("non_block") and call is not None:
            _receiving.set(call.future())
        return call


def accept_tied_weights(module: types.ModuleType) -> None:
    """Switch off vLLM's check that a tied weight comes with the weight it is tied to.

    vLLM skips `lm_head.weight` where it is tied to `embed_tokens.weight`, and since 0.29 requires both in one call.
    verl makes one call per bucket, and in any model larger than a bucket the two are in different buckets.
    """

    @wrapt.when_imported("vllm.model_executor.models.utils")
    def accept(utils: types.ModuleType) -> None:
        if hasattr(utils.AutoWeightsLoader, "_check_skipped_aliases"):
            utils.AutoWeightsLoader._check_skipped_aliases = lambda self, loaded: None
