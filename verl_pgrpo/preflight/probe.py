# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Look at verl and the plugin from inside a process: one that imports verl, Ray workers, or a vLLM process.

    python -m verl_pgrpo.preflight.probe (driver | vllm | ray SECONDS [ADDRESS]) FOLDER

`doctor` starts one process for each, because libraries may hang or crash while they are imported. The answer is
written to `answer.json` in FOLDER, a temporary folder that a private Ray uses as well.
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
    import platform
    import socket
    import sys
    from importlib.metadata import PackageNotFoundError, entry_points, version

    facts: dict[str, Any] = {"host": socket.gethostname(), "python": platform.python_version(), "versions": {}}
    for name in ("verl", "verl-pgrpo", "torch", "ray", "transformers"):
        try:
            facts["versions"][name] = version(name)
        except PackageNotFoundError:
            facts["versions"][name] = None
    facts["policy"] = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto")
    facts["entry_point"] = any(entry.name == "pgrpo" for entry in entry_points(group="verl.plugins"))
    try:
        from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

        facts["registered"] = "pgrpo" in ADV_ESTIMATOR_REGISTRY
        plugin = sys.modules.get("verl_pgrpo.integration.plugin")
        failure = getattr(plugin, "_failure", None)
        facts["failure"] = None if failure is None else f"{type(failure).__name__}: {failure}"
    except Exception as error:
        facts["registered"] = False
        facts["failure"] = f"{type(error).__name__}: {error}"
    return facts


def in_ray(folder: Path, seconds: float, address: str | None = None) -> dict[str, Any]:
    """Describe a worker on each node of a cluster, or of a private Ray on this machine."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if address is None:
        private = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
        ray.init(address="local", _temp_dir=str(folder), _node_ip_address="127.0.0.1", log_to_driver=False, **private)
    else:
        ray.init(address=address, log_to_driver=False)
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        probe = ray.remote(num_cpus=0, max_retries=0)(seen)
        calls = {
            probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(): node
            for node in nodes
        }
        done, _ = ray.wait(list(calls), num_returns=len(calls), timeout=seconds)
        answers = []
        for call, node in calls.items():
            answer: dict[str, Any] = {"failure": "no answer", "registered": False}
            if call in done:
                try:
                    answer = ray.get(call)
                except Exception as error:
                    answer["failure"] = f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"
            answers.append({"host": node["NodeManagerHostname"], **answer})
        return {"nodes": answers, "private": address is None}
    finally:
        ray.shutdown()


def in_vllm() -> dict[str, Any]:
    """Describe a process that imports verl and then vLLM, as verl's rollout server does."""
    import verl  # noqa: F401  # with it verl's plugins
    import vllm
    from vllm.platforms import current_platform
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    return {
        "version": vllm.__version__,
        "platform": current_platform.device_type,
        "verl_plugin": "verl_pgrpo.integration.plugin" in sys.modules,
    }


def main(arguments: list[str]) -> None:
    kind, *more, folder = arguments
    if kind == "ray":
        answer = in_ray(Path(folder), float(more[0]), *more[1:])
    else:
        answer = seen() if kind == "driver" else in_vllm()
    Path(folder, ANSWER).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
