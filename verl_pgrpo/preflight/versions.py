# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Which packages are installed, whether this combination was tested, and what else a launch needs."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from verl_pgrpo.integration.checks import TESTED_VERSIONS

from .command_line import compose, parse
from .diagnostic import ERROR, NOTE, WARNING, Diagnostic, Diagnostics, one_line

# What was tested together, by real runs on the CPU: requirements/cpu.txt, verl's own pins, and the newest releases
# (docs/compatibility.md). Megatron was tested with the first.
TESTED_SET = {
    "verl": "0.9.1",
    "torch": "2.13.0",
    "vllm": "0.30.0",
    "ray": "2.60.0",
    "transformers": "5.10.4",
    "TransferQueue": "0.1.11",
}
OTHER_SETS = (
    TESTED_SET | {"torch": "2.11.0", "vllm": "0.24.0", "transformers": "5.9.0"},
    TESTED_SET | {"vllm": "0.32.0", "transformers": "5.16.1"},
)
TESTED_MEGATRON = {"megatron-core": "0.16.1", "megatron-bridge": "0.3.1", "mbridge": "0.15.1"}
NEEDED = {
    "verl": f"pip install verl=={TESTED_VERSIONS[-1]}",
    "torch": "pip install torch",
    "ray": "pip install ray",
    "TransferQueue": 'pip install "TransferQueue>=0.1.10": verl imports it but does not require it',
    "vllm": "pip install vllm, unless the rollout uses another engine",
}

# Patches without which preflight reports an error: a file below verl/workers and a text that only the patch adds.
PATCHES = {
    "0002": ("rollout/vllm_rollout/vllm_async_server.py", "data_parallel_size_local or None"),
    "0003": ("engine/fsdp/transformer_impl.py", "_drop_tied_output"),
}


def installed(name: str) -> str | None:
    """The version of a distribution (for vLLM also of its CPU build); None if it is not installed."""
    for candidate in (name, f"{name}-cpu") if name == "vllm" else (name,):
        try:
            return version(candidate).partition("+")[0]
        except PackageNotFoundError:
            continue
    return None


def has_patch(number: str) -> bool:
    """Whether the installed verl has one of patches/. Read from its source, as importing takes seconds."""
    import verl

    file, text = PATCHES[number]
    return text in (Path(verl.__file__).parent / "workers" / file).read_text(encoding="utf-8")


def vllm_version() -> tuple[int, int] | None:
    """Major and minor version of the installed vLLM, or of its CPU build; None without one."""
    number = installed("vllm")
    return None if number is None else (int(number.split(".")[0]), int(number.split(".")[1]))


def needs_older_vllm(diagnostics: Diagnostics, limit: tuple[int, int], message: str, location: str, fix: str) -> None:
    """Report what vLLM rejects since the version `limit`; only a warning if no vLLM is installed."""
    found = vllm_version()
    if found is None or found >= limit:
        add = diagnostics.warning if found is None else diagnostics.error
        add(f"{message}: vllm >= {limit[0]}.{limit[1]} fails on this", location, fix)


def check_versions() -> list[Diagnostic]:
    found = [Diagnostic(NOTE, "python", platform.python_version())]
    for name, fix in NEEDED.items():
        number = installed(name)
        if number is None:
            found.append(Diagnostic(WARNING if name == "vllm" else ERROR, name, "not installed", "", fix))
        elif name == "verl" and number not in TESTED_VERSIONS:
            tested = f"tested: {', '.join(TESTED_VERSIONS)}"
            found.append(Diagnostic(WARNING, name, f"{number}, not tested", "", tested))
        else:
            found.append(Diagnostic(NOTE, name, number))
    return [*found, _megatron(), _tested_together()]


def _megatron() -> Diagnostic:
    numbers = {name: installed(name) for name in TESTED_MEGATRON}
    if numbers["megatron-core"] is None:
        return Diagnostic(NOTE, "megatron", "not installed; only model_engine=megatron needs it")
    text = ", ".join(f"{name} {number or 'missing'}" for name, number in numbers.items())
    if numbers["megatron-bridge"] is None and numbers["mbridge"] is None:
        fix = "pip install megatron-bridge or mbridge: verl loads weights with one of them"
        return Diagnostic(ERROR, "megatron", text, "", fix)
    return Diagnostic(NOTE, "megatron", text)


def _tested_together() -> Diagnostic:
    numbers = {name: installed(name) for name in TESTED_SET | (TESTED_MEGATRON if installed("megatron-core") else {})}
    others: list[list[str]] = []
    for tested in (TESTED_SET | TESTED_MEGATRON, *OTHER_SETS):
        if numbers["verl"] in TESTED_VERSIONS:
            tested = tested | {"verl": numbers["verl"]}  # each of these was tested with the others
        others.append(
            [f"{n} {v} (tested: {tested.get(n)})" for n, v in numbers.items() if v not in (None, tested.get(n))]
        )
    if nearest := min(others, key=len):
        fix = "probably fine if only the last number differs; the tested sets: docs/compatibility.md"
        return Diagnostic(WARNING, "together", f"not tested as a set: {', '.join(nearest)}", "", fix)
    if None in numbers.values():
        return Diagnostic(WARNING, "together", "not all of the tested set is installed", "", "see above")
    return Diagnostic(NOTE, "together", "this set was tested, on the CPU")


def check_launch_packages(arguments: Sequence[str]) -> list[Diagnostic]:
    """The packages that a launch needs on GPUs, which verl imports late or without requiring them.

    Args:
        arguments: those of `python3 -m verl.trainer.main_ppo`.
    """
    try:
        config = compose(parse(arguments))
    except Exception as error:  # Hydra raises many types
        return [Diagnostic(ERROR, "launch", one_line(error), "the command line", "see `verl-pgrpo preflight`")]
    if str(config.trainer.device) == "cpu":
        return [Diagnostic(NOTE, "launch", "trainer.device=cpu needs no GPU packages", "trainer.device")]
    launch, needed = config.actor_rollout_ref, []  # module, package, configuration key
    megatron, rollout = launch.actor.strategy == "megatron", launch.rollout.name
    attention = launch.model.override_config.get("attn_implementation", "flash_attention_2")
    if megatron or attention.startswith("flash_attention"):
        needed.append(("flash_attn", "flash-attn", "model.override_config.attn_implementation"))
    if megatron:
        needed.append(("transformer_engine", "transformer-engine", "actor.strategy=megatron"))
        needed.append(("megatron.core", "megatron-core", "actor.strategy=megatron"))
        bridge = (
            ("mbridge", "mbridge") if launch.actor.megatron.vanilla_mbridge else ("megatron.bridge", "megatron-bridge")
        )
        needed.append((*bridge, "actor.megatron.vanilla_mbridge"))
    if launch.rollout.checkpoint_engine.backend == "nccl":
        needed.append(("cupy", "cupy-cuda12x or cupy-cuda13x", "rollout.checkpoint_engine.backend=nccl"))
    if rollout in ("vllm", "sglang"):
        needed.append((rollout, rollout, f"rollout.name={rollout}"))
    found = []
    for module, package, key in needed:
        severity, text, fix = NOTE, "installed", ""
        if not _importable(module):
            severity, text, fix = ERROR, "not installed", f"install {package}, or use an image of verl that has it"
        message = f"{package} is {text}; the launch needs it"
        found.append(Diagnostic(severity, f"launch, {module}", message, f"actor_rollout_ref.{key}", fix))
    return found


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:
        return False
