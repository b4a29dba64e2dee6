# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The part of transformer-engine that Megatron uses, in plain torch; for tests and demos on a CPU.

transformer-engine is CUDA code and cannot be installed without it. Megatron-core and Megatron-Bridge wrap its classes
under their own names (`TELinear`, ...), which determine how weights are mapped and checkpoints written. With the
stand-ins below, all of that is Megatron's own code, as on a GPU. The stand-ins are the layers (`megatron_layers.py`),
the optimizer, and names that only have to exist. The kernels and the overlap of communication and computation are
missing.

`install()` puts a module `transformer_engine` into `sys.modules`. Where features are missing, Megatron behaves as with
an older transformer-engine.
"""

import importlib.machinery
import sys
import types
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch

from verl_cpu.megatron_layers import LAYERS, only_on_gpus

VERSION = "1.12.0"
"""The version that Megatron sees: it has all the features below, but none of the later kernels."""


class FusedAdam(torch.optim.Optimizer):
    """AdamW that counts its steps in the parameter group, as transformer-engine's does.

    Megatron's distributed optimizer saves the count from there. With torch's AdamW the count is lost, and after a
    resume the bias correction silently restarts.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        adam_w_mode: bool = True,
    ) -> None:
        if not adam_w_mode:
            raise only_on_gpus(
                "Adam with coupled weight decay", "optim.optimizer=adam with decoupled weight decay (AdamW)"
            )
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            if not group["params"]:
                continue
            group["step"] = group.get("step", 0) + 1
            beta1, beta2 = group["betas"]
            correction1, correction2 = 1 - beta1 ** group["step"], 1 - beta2 ** group["step"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
                state["exp_avg"].lerp_(p.grad, 1 - beta1)
                state["exp_avg_sq"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                root = (state["exp_avg_sq"] / correction2).sqrt_().add_(group["eps"])
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.addcdiv_(state["exp_avg"], root, value=-group["lr"] / correction1)


class _NotHere:
    """A name that Megatron imports or subclasses, but uses on GPUs only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise only_on_gpus(
            "a part of transformer-engine that has no stand-in", "the options of the preset cpu_megatron"
        )


class _NoFP8:
    """The fp8 state that Megatron queries: off."""

    @staticmethod
    def is_fp8_enabled() -> bool:
        return False


def install() -> None:
    """Make `import transformer_engine` find these stand-ins. Idempotent.

    Raises:
        RuntimeError: Megatron has already been imported without it.
    """
    if "transformer_engine" in sys.modules:
        return
    if "megatron.core" in sys.modules:
        raise RuntimeError("megatron.core was imported before its stand-in for transformer-engine")
    contents: dict[str, dict[str, Any]] = {
        "": {"__version__": VERSION},
        "common": {},
        "common.recipe": {name: _NotHere for name in ("DelayedScaling", "Format")},
        "pytorch": {
            **{layer.__name__: layer for layer in LAYERS},
            **{name: _NotHere for name in ("LayerNorm", "TransformerLayer", "LayerNormMLP")},
        },
        "pytorch.cpp_extensions": {"cast_to_fp8": _NotHere},
        "pytorch.distributed": {"CudaRNGStatesTracker": _NotHere, "activation_recompute_forward": nullcontext},
        "pytorch.float8_tensor": {"Float8Tensor": _NotHere},
        "pytorch.fp8": {"FP8GlobalStateManager": _NoFP8, "fp8_autocast": nullcontext},
        "pytorch.ops": {"Sequential": _NotHere},
        "pytorch.optimizers": {"FusedAdam": FusedAdam, "FusedSGD": torch.optim.SGD},
    }
    for path, names in contents.items():
        full = f"transformer_engine.{path}".rstrip(".")
        module = types.ModuleType(full, "A stand-in in plain torch, see verl_cpu.transformer_engine.")
        module.__spec__ = importlib.machinery.ModuleSpec(full, None, is_package=True)
        module.__path__ = []
        module.__dict__.update(names)
        sys.modules[full] = module
        parent, _, name = full.rpartition(".")
        if parent:
            setattr(sys.modules[parent], name, module)
