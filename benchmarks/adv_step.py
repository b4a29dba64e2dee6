# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Cost of verl's whole advantage step (its `timing_s/adv`): `pgrpo` against `grpo`, on a real TransferQueue.

    python benchmarks/adv_step.py [--quick] [--json FILE]

verl's own sync trainer fetches recorded rollouts from TransferQueue, computes advantages, and writes them back; no
worker generates or learns. `pgrpo` also fetches the preference groups (`column`, also timed separately) and keeps
history and metrics. The two estimators alternate on the same batch; their ratio is that of the medians.
"""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

import numpy as np
from speed import batch_keys, machine, parser, show, uids

PER_PROMPT = 2
GROUPS = 1000
CASES = [(64, 12), (512, 128), (2048, 512)]  # responses and their tokens; the first is the quickstart's


def trainer(estimator: str) -> Any:
    """verl's sync trainer with the attributes that its advantage step needs."""
    from omegaconf import OmegaConf
    from verl.trainer.ppo.v1 import get_trainer_cls

    from verl_pgrpo import PGRPOConfig
    from verl_pgrpo.integration.batch import GroupColumn
    from verl_pgrpo.integration.state import PGRPOState

    made = object.__new__(get_trainer_cls("sync"))
    algorithm = {"adv_estimator": estimator, "gamma": 1.0, "lam": 1.0, "use_kl_in_reward": False}
    made.config = OmegaConf.create(
        {"algorithm": algorithm, "actor_rollout_ref": {"rollout": {"n": PER_PROMPT}}}, flags={"allow_objects": True}
    )
    made.pgrpo = None
    if estimator == "pgrpo":
        made.pgrpo = PGRPOState(PGRPOConfig.from_algorithm(made.config.algorithm))
        made._pgrpo_column = GroupColumn("preference_group")
    return made


def put(batch: int, length: int, seed: int) -> Any:
    """Put rollouts of full length into TransferQueue; return verl's description of them."""
    import torch
    import transfer_queue as tq
    from transfer_queue import KVBatchMeta
    from verl.utils.tensordict_utils import get_tensordict

    keys, labels = batch_keys(batch, PER_PROMPT, GROUPS, seed)
    tags: list[dict[str, Any]] = [{"is_padding": False} for _ in keys]
    rewards = torch.zeros(batch, length)
    rewards[:, -1] = torch.randn(batch, generator=torch.Generator().manual_seed(seed))

    def nested(rows: torch.Tensor) -> torch.Tensor:
        return torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)

    fields = get_tensordict(
        {
            "uid": uids(keys),
            "preference_group": np.array(labels, dtype=object),
            "response_mask": nested(torch.ones(batch, length, dtype=torch.int64)),
            "rm_scores": nested(rewards),
            "old_log_probs": nested(torch.zeros(batch, length)),
            "rollout_log_probs": nested(torch.zeros(batch, length)),
        }
    )
    tq.kv_batch_put(keys=keys, partition_id="train", fields=fields, tags=tags)
    return KVBatchMeta(partition_id="train", keys=keys, tags=tags)


def case(batch: int, length: int, steps: int, seed: int) -> dict[str, float]:
    """Return the median seconds of a step with each estimator, and of fetching the group column alone."""
    import transfer_queue as tq

    from verl_pgrpo.integration.batch import GroupColumn
    from verl_pgrpo.integration.trainers import preference_groups

    meta = put(batch, length, seed)
    contenders = {name: trainer(name) for name in ("grpo", "pgrpo")}
    times: dict[str, list[float]] = {"grpo": [], "pgrpo": [], "column": []}
    for number in range(steps + 1):
        for name in sorted(contenders, reverse=bool(number % 2)):
            start = time.perf_counter()
            contenders[name]._compute_advantage(meta, {})
            times[name].append(time.perf_counter() - start)
        start = time.perf_counter()
        preference_groups(meta, GroupColumn("preference_group"))
        times["column"].append(time.perf_counter() - start)
    tq.kv_clear(keys=meta.keys, partition_id="train")
    return {name: statistics.median(seconds[1:]) for name, seconds in times.items()}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--quick", action="store_true", help="batches of 64 and 512 only")
    options.add_argument("--steps", type=int, default=20, help="of each estimator")
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    os.environ.setdefault("TQ_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray stays on 127.0.0.1
    import ray
    import transfer_queue as tq
    from omegaconf import OmegaConf

    ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False)
    try:
        tq.init(OmegaConf.create({"backend": {"SimpleStorage": {"num_data_storage_units": 1}}}))
        print(f"seed {args.seed}, medians of {args.steps} steps, n={PER_PROMPT}, {GROUPS} groups; {machine()}")
        table = []
        for batch, length in CASES[:2] if args.quick else CASES:
            found = {f"{name} ms": 1e3 * s for name, s in case(batch, length, args.steps, args.seed).items()}
            ratio = found["pgrpo ms"] / found["grpo ms"]
            table.append({"batch": batch, "tokens": length, **found, "pgrpo / grpo": ratio})
        show(table, args.json)
    finally:
        tq.close()
        ray.shutdown()


if __name__ == "__main__":
    main()
