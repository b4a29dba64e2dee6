# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Whether this machine, or cluster, can run verl with the plugin: versions, the plugin in every process, resources."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

from . import machine
from .child import Child
from .plugin_probe import ANSWER
from .versions import has, installed, versions
from .vital import BAD, OK, WARN, Vital

__all__ = ["examine"]

PROCESSES = {"driver": "the driver", "ray": "Ray workers", "vllm": "a vLLM process"}
LATE = "a busy machine may need longer: --timeout 180"


def examine(
    address: str | None = None, timeout: float = 90.0, say: Callable[[str], None] = lambda _: None
) -> list[Vital]:
    """All lines, in the order in which they are read.

    Args:
        address: of a Ray cluster; None: a private Ray on this machine.
        timeout: seconds for all processes that are started, together.
        say: called with what is being waited for.
    """
    vitals = versions()
    missing = {name for name in PROCESSES if name != "driver" and installed(name) is None}
    if installed("verl") is None:
        missing = {"verl"}
    deadline = time.monotonic() + timeout
    children = {
        kind: _started(kind, timeout, address) for kind in PROCESSES if kind not in missing and "verl" not in missing
    }
    try:
        resources = [machine.accelerators(), machine.shared_memory(), *machine.disks(), machine.open_files()]
        answers = {}
        for kind, child in children.items():
            say(f"the plugin in {PROCESSES[kind]} ...")
            answers[kind] = _answer(child, deadline)
    finally:
        for child in children.values():
            child.end(patience=5.0)
    return [*vitals, *_plugin(answers, missing), *resources]


def _started(kind: str, timeout: float, address: str | None = None) -> Child:
    environment = dict(os.environ)
    arguments = [kind]
    if kind == "ray":
        arguments.append(str(0.75 * timeout))  # for the workers; the rest is for Ray itself
        arguments += [address] if address else []
        if not address:  # a private one stays on 127.0.0.1; Ray reads this while it is imported
            environment = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"} | environment
            environment.pop("RAY_ADDRESS", None)
    if kind == "vllm" and not has("vllm"):  # the CPU build runs with this only, which a launch there sets
        environment["VERL_PLATFORM"] = "cpu"
    return Child().start("plugin_probe", *arguments, environment=environment)


def _answer(child: Child, deadline: float) -> dict[str, Any]:
    """What it found, or `failure`. Ray's processes end with the one that started them, which is asked to."""
    try:
        if not child.wait(deadline):
            return {"failure": "no answer in time", "late": True}
        return json.loads((child.folder / ANSWER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"failure": child.last_words or "it ended without a word"}
    finally:
        child.end(patience=5.0)


def _plugin(answers: dict[str, dict[str, Any]], missing: set[str]) -> list[Vital]:
    vitals = []
    for name, title in (("driver", "plugin, driver"), ("ray", "plugin, Ray"), ("vllm", "plugin, vLLM")):
        answer = answers.get(name)
        if answer is None:
            lacking = "verl" if "verl" in missing else name
            status = WARN if lacking == "vllm" else BAD
            vitals.append(Vital(title, status, f"not looked for: {lacking} is not installed", f"install {lacking}"))
        elif name == "vllm":
            vitals.append(_in_vllm(title, answer))
        elif name == "driver":
            vitals.append(_in_driver(title, answer))
        else:
            vitals.append(_in_ray(title, answer, answers["driver"]))
    return vitals


def _in_driver(title: str, answer: dict[str, Any]) -> Vital:
    if wrong := _wrong(answer):
        return Vital(title, BAD, *wrong)
    return Vital(title, OK, f"pgrpo is registered (verl-pgrpo {answer['versions']['verl-pgrpo']})")


def _wrong(answer: dict[str, Any]) -> tuple[str, str] | None:
    """What keeps the plugin out of a process, and the remedy."""
    if answer.get("late"):
        return answer["failure"], LATE
    if answer.get("registered") and not answer.get("failure"):
        return None
    if answer.get("entry_point") is False:
        return "verl-pgrpo is not installed there: it has no entry point", "pip install it there, not only PYTHONPATH"
    if answer.get("policy", "auto").strip().lower() != "auto":
        said = f"VERL_USE_EXTERNAL_PLUGINS={answer['policy']} leaves it out"
        return said, "unset it, or add pgrpo to the list"
    said = answer.get("failure") or "pgrpo is not registered"
    return said, "python -c 'import verl_pgrpo.integration.plugin' says more"


def _in_ray(title: str, answer: dict[str, Any], driver: dict[str, Any]) -> Vital:
    if "nodes" not in answer:
        return Vital(title, BAD, *(_wrong(answer) or ("no answer", "look at Ray's logs")))
    nodes = answer["nodes"]
    for node in nodes:
        if wrong := _wrong(node):
            return Vital(title, BAD, f"on {node['host']}: {wrong[0]}", wrong[1])
    ours = driver.get("versions", {})
    for node in nodes:
        other = [f"{name} {node['versions'][name]}, here {ours[name]}" for name in ours
                 if node["versions"][name] != ours[name]]  # fmt: skip
        if other:
            return Vital(title, BAD, f"on {node['host']}: {'; '.join(other)}", "the same versions on every node")
    where = "a worker of a private Ray" if answer["private"] else f"a worker on each of {len(nodes)} nodes"
    return Vital(title, OK, f"pgrpo is registered in {where}")


def _in_vllm(title: str, answer: dict[str, Any]) -> Vital:
    if "version" not in answer:
        return Vital(title, BAD, answer["failure"], LATE if answer.get("late") else "python -c 'import vllm' says more")
    if not answer["verl_plugin"]:
        return Vital(title, BAD, "verl does not load it there", "see the driver's line")
    if not answer["general"]:
        said = "vLLM does not load pgrpo_cpu, its general plugin"
        return Vital(title, BAD, said, "unset VLLM_PLUGINS, or add pgrpo_cpu; pip install verl-pgrpo")
    return Vital(title, OK, f"loaded, vLLM's platform is {answer['platform']}")
