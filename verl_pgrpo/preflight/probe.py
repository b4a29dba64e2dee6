# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Inspect verl and the plugin from inside a process: one that imports verl, Ray workers, or a vLLM process.

    python -m verl_pgrpo.preflight.probe (driver | vllm | ray SECONDS [ADDRESS]) FOLDER

`doctor` starts one process for each, because libraries may hang or crash on import. The answer, one entry per process,
is written to `answer.json` in FOLDER, a temporary folder that a private Ray uses as well.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ANSWER = "answer.json"


def seen() -> dict[str, Any]:
    """Describe this process. Imports everything itself: Ray sends it by value to nodes that may lack this package."""
    import os
    import socket
    import sys
    from importlib.metadata import PackageNotFoundError, entry_points, version

    versions: dict[str, str | None] = {}
    for name in ("verl", "verl-pgrpo", "torch", "ray", "transformers"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    failure, fix = "", "python -c 'import verl_pgrpo.integration.plugin'"
    policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto")
    try:
        from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

        error = getattr(sys.modules.get("verl_pgrpo.integration.plugin"), "_failure", None)
        registered = "pgrpo" in ADV_ESTIMATOR_REGISTRY
    except Exception as caught:
        error, registered = caught, False
    if error is not None or not registered:
        failure = "pgrpo is not registered" if error is None else f"{type(error).__name__}: {error}"
        if not any(entry.name == "pgrpo" for entry in entry_points(group="verl.plugins")):
            failure = "verl-pgrpo is not installed there: no entry point"
            fix = "pip install it there; PYTHONPATH is not enough"
        elif policy.strip().lower() != "auto":
            failure, fix = f"VERL_USE_EXTERNAL_PLUGINS={policy} excludes it", "unset it, or add pgrpo to the list"
    return {"host": socket.gethostname(), "versions": versions, "failure": failure, "fix": fix}


def in_ray(folder: Path, seconds: float, address: str | None = None) -> list[dict[str, Any]]:
    """Describe a worker on each node of a cluster, or of a private Ray on this machine."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if address is None:
        private = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
        ray.init(address="local", _temp_dir=str(folder), _node_ip_address="127.0.0.1", log_to_driver=False, **private)
    else:
        ray.init(address=address, log_to_driver=False)
    try:
        probe = ray.remote(num_cpus=0, max_retries=0)(seen)
        calls = {}
        for node in ray.nodes():
            if node["Alive"]:
                here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                calls[probe.options(scheduling_strategy=here).remote()] = node["NodeManagerHostname"]
        done, _ = ray.wait(list(calls), num_returns=len(calls), timeout=seconds)
        answers = []
        for call, host in calls.items():
            try:
                answers.append(ray.get(call) if call in done else {"failure": "no answer"})
            except Exception as error:
                answers.append({"failure": f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"})
            answers[-1] |= {"host": host}
        return answers
    finally:
        ray.shutdown()


def in_vllm() -> list[dict[str, Any]]:
    """Describe a process that imports verl and then vLLM, as verl's rollout server does."""
    import verl  # noqa: F401  # also loads verl's plugins
    from vllm.platforms import current_platform
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    return [{**seen(), "platform": current_platform.device_type}]


def main(kind: str, *more: str) -> None:
    folder = Path(more[-1])
    looks = {"driver": lambda: [seen()], "vllm": in_vllm, "ray": lambda: in_ray(folder, float(more[0]), *more[1:-1])}
    answers = looks[kind]()
    (folder / ANSWER).write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
