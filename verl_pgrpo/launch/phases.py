# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""An estimate of a launch's memory: what lies on the fullest GPU in each phase of a step, and what does not fit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .problem import ACTOR, REF, ROLLOUT, Problem
from .settings import Launch

GIB = float(1 << 30)

REMEDIES = {
    "rollout": (f"{ROLLOUT}.gpu_memory_utilization", "lower it, or offload what stays on the GPU meanwhile"),
    "reference": (f"{ROLLOUT}.log_prob_max_token_len_per_gpu, {REF}", "fewer tokens a micro-batch, or offload"),
    "weight sync": (f"{ACTOR}, {ROLLOUT}", "offload the optimizer, or cut the model into more parts"),
    "update": (
        f"{ACTOR}.ppo_max_token_len_per_gpu, {ACTOR}",
        "fewer tokens a micro-batch, recomputation, or more GPUs for a copy of the model",
    ),
}


@dataclass(frozen=True, slots=True)
class Phase:
    """What lies on the fullest GPU at one time; `parts` are GiB by name."""

    name: str
    parts: dict[str, float]
    limit: float  # GiB

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        return self.total <= self.limit


@dataclass(frozen=True, slots=True)
class Estimate:
    """The phases of a step, and what vLLM's cache holds."""

    launch: Launch
    gpu: float  # GiB
    parameters: float  # on the fullest training GPU
    phases: tuple[Phase, ...]
    rollout_weights: float  # GiB on one GPU
    kv_cache: float  # GiB on one GPU
    kv_bytes_a_token: int  # on one GPU
    full_sequences: float  # of prompt and response at full length that one vLLM holds at a time

    def phase(self, name: str) -> Phase:
        return next(phase for phase in self.phases if phase.name == name)

    def problems(self) -> list[Problem]:
        """What does not fit, one sentence each. Fatal is what is more than the whole GPU."""
        found = [
            Problem(
                f"{phase.name}: {phase.total:.0f} GiB on a GPU are more than {phase.limit:.0f} ("
                + ", ".join(f"{name} {gib:.1f}" for name, gib in phase.parts.items() if gib)
                + ")",
                *REMEDIES[phase.name],
                fatal=phase.total > self.gpu,
            )
            for phase in self.phases
            if not phase.fits
        ]
        if self.full_sequences < 1:
            found.append(
                Problem(
                    f"KV cache: gpu_memory_utilization={self.launch.utilization} leaves {self.kv_cache:.1f} GiB beside "
                    f"the weights ({self.rollout_weights:.1f}), less than one prompt and response",
                    f"{ROLLOUT}.gpu_memory_utilization, {ROLLOUT}.tensor_model_parallel_size",
                    "raise one of them",
                )
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        """For JSON: GiB and names."""
        return {
            "gpu_gib": self.gpu,
            "parameters_on_the_fullest_gpu": self.parameters,
            "phases": [{**asdict(phase), "total": phase.total, "fits": phase.fits} for phase in self.phases],
            "kv_cache_gib": self.kv_cache,
            "kv_bytes_a_token": self.kv_bytes_a_token,
            "full_sequences": self.full_sequences,
        }

    def describe(self) -> str:
        lines = [f"{self.parameters / 1e9:.2f} G parameters on the fullest training GPU"]
        for phase in self.phases:
            parts = " + ".join(f"{name} {gib:.1f}" for name, gib in phase.parts.items() if gib)
            lines.append(f"{phase.name}: {phase.total:.1f} of {phase.limit:.1f} GiB = {parts}")
        lines.append(
            f"KV cache: {self.kv_cache:.1f} GiB on a GPU, {self.kv_bytes_a_token / 1024:.0f} KiB a token, "
            f"{self.full_sequences:.0f} full sequences in one vLLM"
        )
        return "\n".join(lines)
