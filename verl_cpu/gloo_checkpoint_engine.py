# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The checkpoint engine `gloo`: sends weights from the trainer to separate rollout processes without an accelerator.

`separate_async` needs a checkpoint engine, and each of verl's own is made for an accelerator's interconnect. verl loads
this one because the presets name it in `actor_rollout_ref.rollout.checkpoint_engine.custom_backend_module`.

Each sync has its own process group, which is not registered with torch.distributed, so FSDP's groups are unaffected.
Actor rank 0 broadcasts every weight in pieces of at most a bucket: first the two lengths, then the piece's description
as JSON (unpickling could execute code), then its bytes. A rank that waits too long for the others raises an error.

Works on one machine only: the store listens on loopback, and so does gloo (the CPU platform sets `GLOO_SOCKET_IFNAME`).
"""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Generator
from datetime import timedelta
from typing import Any

import torch
from torch.distributed import ProcessGroupGloo, TCPStore
from verl.checkpoint_engine.base import (
    CheckpointEngine,
    CheckpointEngineRegistry,
    TensorMeta,
    merge_weight_chunks,
    split_weight_chunks,
)

LOOPBACK = "127.0.0.1"


@CheckpointEngineRegistry.register("gloo")
class GlooCheckpointEngine(CheckpointEngine):
    """One end of the transfer: the sender (actor rank 0), a receiver (each rollout worker), or another actor rank.

    Args:
        bucket_size: maximum number of bytes of a weight that are sent at once.
        is_master: this is actor rank 0.
        timeout: seconds of each wait for the others; `checkpoint_engine.engine_kwargs.gloo.timeout`.
    """

    def __init__(self, bucket_size: int, is_master: bool = False, timeout: float = 120.0) -> None:
        self.bucket_size = bucket_size
        self.is_master = is_master
        self.timeout = timedelta(seconds=timeout)
        self._store: TCPStore | None = None
        self._group: Any = None  # a ProcessGroupGloo; torch's stubs do not know its collectives

    def prepare(self) -> dict[str, int]:
        if not self.is_master:
            return {}
        listener = socket.create_server((LOOPBACK, 0))  # by default a TCPStore listens on all addresses
        port: int = listener.getsockname()[1]
        self._store = self._connect(port, is_master=True, master_listen_fd=listener.detach())
        return {"port": port}

    @classmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: list[dict[str, int]]
    ) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
        size, port = 1 + rollout_world_size, metadata[0]["port"]
        ranks = [0] + [-1] * (actor_wg_world_size - 1), list(range(1, size))
        actor, rollout = ({"rank": r, "world_size": [size] * len(r), "port": [port] * len(r)} for r in ranks)
        return actor, rollout

    def init_process_group(self, rank: int, world_size: int, port: int) -> None:
        if rank < 0:
            return
        if rank > 0:
            self._store = self._connect(port, is_master=False)
        assert self._store is not None  # rank 0 has made it in prepare()
        self._group = ProcessGroupGloo(self._store, rank, world_size, self.timeout)

    def finalize(self) -> None:
        self._group = self._store = None

    async def send_weights(
        self, weights: Generator[tuple[str, torch.Tensor], None, None], global_steps: int | None = None
    ) -> None:
        if not self.is_master:
            for _ in weights:  # producing each weight is a collective operation over the actor's ranks
                pass
            return
        async for meta, piece in split_weight_chunks(weights, self.bucket_size):
            what = {
                "name": meta.name,
                "shape": list(meta.shape),
                "dtype": str(meta.dtype).removeprefix("torch."),
                "chunk_offset": meta.chunk_offset,
                "chunk_size": meta.chunk_size,
            }
            await asyncio.to_thread(self._send, json.dumps(what).encode(), piece)
        await asyncio.to_thread(self._send, b"", torch.empty(0, dtype=torch.uint8))

    async def receive_weights(self, global_steps: int | None = None) -> AsyncGenerator[tuple[str, torch.Tensor], None]:
        async for name, weight in merge_weight_chunks(self._pieces(), self.bucket_size):
            yield name, weight

    async def _pieces(self) -> AsyncGenerator[tuple[TensorMeta, torch.Tensor], None]:
        while (piece := await asyncio.to_thread(self._receive)) is not None:
            yield piece

    def _send(self, what: bytes, piece: torch.Tensor) -> None:
        self._broadcast(torch.tensor([len(what), len(piece)]))
        if what:
            self._broadcast(torch.frombuffer(bytearray(what), dtype=torch.uint8))
            self._broadcast(piece)

    def _receive(self) -> tuple[TensorMeta, torch.Tensor] | None:
        """Return a copy of the next piece; None at the end."""
        length, size = self._broadcast(torch.empty(2, dtype=torch.int64)).tolist()
        if not length:
            return None
        what: dict[str, Any] = json.loads(self._broadcast(torch.empty(length, dtype=torch.uint8)).numpy().tobytes())
        what.update(shape=torch.Size(what["shape"]), dtype=getattr(torch, what["dtype"]), offset=0)
        return TensorMeta(**what), self._broadcast(torch.empty(size, dtype=torch.uint8))

    def _broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        """Broadcast from rank 0. Blocks, so callers use a thread: verl's workers have a single event loop."""
        if self._group is None:
            raise RuntimeError("This checkpoint engine has no process group: init_process_group comes first.")
        self._group.broadcast(tensor, 0).wait()
        return tensor

    def _connect(self, port: int, **kwargs: Any) -> TCPStore:
        return TCPStore(LOOPBACK, port, wait_for_workers=False, timeout=self.timeout, **kwargs)
