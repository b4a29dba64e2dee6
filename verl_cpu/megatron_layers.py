# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""transformer-engine's layers in plain torch, for Megatron on a CPU; see `transformer_engine.py`.

Names, arguments, parameters and the parallel communication are transformer-engine's. Dropout, windows, LayerNorm and
context parallelism raise NotImplementedError.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F


def only_on_gpus(feature: str, instead: str) -> NotImplementedError:
    """Return the error for a feature that has no stand-in in plain torch."""
    return NotImplementedError(f"{feature}: needs transformer-engine and a GPU. For Megatron on a CPU use {instead}.")


class _Module(torch.nn.Module):
    """Base class of transformer-engine's modules, with an empty state of fp8 scales."""

    fp8 = fp8_calibration = False

    def __init__(self) -> None:
        super().__init__()
        self.fp8_meta: dict[str, Any] = {"fp8_checkpoint": False, "recipe": None}

    def init_fp8_metadata(self, num_gemms: int = 1) -> None:
        pass

    def get_extra_state(self) -> Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None:
        pass


class RMSNorm(_Module):
    """x / rms(x) * weight, in float32 inside. Its gradient is summed over the ranks of a parallel sequence."""

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        sequence_parallel: bool = False,
        params_dtype: torch.dtype | None = None,
        zero_centered_gamma: bool = False,
        device: Any = None,
    ) -> None:
        super().__init__()
        self.eps, self.zero_centered_gamma = eps, zero_centered_gamma
        fill = torch.zeros if zero_centered_gamma else torch.ones
        self.weight = Parameter(fill(hidden_size, dtype=params_dtype, device=device))
        self.weight.sequence_parallel = sequence_parallel  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        return _rms_norm(x, self.weight, self.eps, self.zero_centered_gamma)


def _rms_norm(x: Tensor, weight: Tensor, eps: float, zero_centered_gamma: bool) -> Tensor:
    gamma = weight.float() + 1.0 if zero_centered_gamma else weight.float()
    return F.rms_norm(x.float(), gamma.shape, gamma, eps).to(x.dtype)


class Linear(_Module):
    """y = x W^T + b with W split over the tensor-parallel ranks by rows of W (`column`) or by columns (`row`)."""

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        sequence_parallel: bool = False,
        tp_group: Any = None,
        tp_size: int = 1,
        init_method: Callable[[Tensor], Any] | None = None,
        get_rng_state_tracker: Callable[[], Any] | None = None,
        rng_tracker_name: str | None = None,
        bias: bool = True,
        return_bias: bool = False,
        parallel_mode: str | None = None,
        params_dtype: torch.dtype | None = None,
        device: Any = None,
        fuse_wgrad_accumulation: bool = False,
        **ignored: Any,  # of the overlap of communication and computation
    ) -> None:
        super().__init__()
        if fuse_wgrad_accumulation:
            raise only_on_gpus(
                "gradient_accumulation_fusion=True", "override_transformer_config.gradient_accumulation_fusion=False"
            )
        split = tp_size if parallel_mode else 1
        self.in_features = in_features // split if parallel_mode == "row" else in_features
        self.out_features = out_features // split if parallel_mode == "column" else out_features
        self.tp_group, self.tp_size, self.parallel_mode = tp_group, tp_size, parallel_mode
        self.sequence_parallel = sequence_parallel and tp_size > 1
        self.use_bias, self.return_bias = bias, return_bias
        self._initialise(init_method, get_rng_state_tracker, rng_tracker_name, params_dtype, device)

    def _initialise(
        self,
        init_method: Callable[[Tensor], Any] | None,
        get_rng_state_tracker: Callable[[], Any] | None,
        rng_tracker_name: str | None,
        dtype: torch.dtype | None,
        device: Any,
    ) -> None:
        from megatron.core.tensor_parallel import set_tensor_model_parallel_attributes

        fork = nullcontext()
        if get_rng_state_tracker is not None:
            fork = get_rng_state_tracker().fork(*([rng_tracker_name] if rng_tracker_name else []))
        with fork:
            for suffix in self._suffixes():
                weight = Parameter(torch.empty(self.out_features, self.in_features, dtype=dtype, device=device))
                with torch.no_grad():
                    (init_method or torch.nn.init.xavier_normal_)(weight)
                set_tensor_model_parallel_attributes(weight, True, 1 if self.parallel_mode == "row" else 0, 1)
                self.register_parameter(f"weight{suffix}", weight)
        for suffix in self._suffixes():
            self.register_parameter(f"bias{suffix}", None)
            if self.use_bias:
                bias = Parameter(torch.zeros(self.out_features, dtype=dtype, device=device))
                if self.parallel_mode == "row":
                    bias.sequence_parallel = self.sequence_parallel  # type: ignore[attr-defined]
                else:
                    set_tensor_model_parallel_attributes(bias, True, 0, 1)
                self.register_parameter(f"bias{suffix}", bias)

    def _suffixes(self) -> list[str]:
        """Return the suffixes of its weights' names."""
        return [""]

    def _multiply(self, x: Tensor) -> Any:
        """Multiply, and communicate before and after. With `return_bias` return the bias instead of adding it."""
        from megatron.core import tensor_parallel as tp

        if self.parallel_mode == "column" and self.tp_size > 1:
            if self.sequence_parallel:
                x = tp.gather_from_sequence_parallel_region(x, tensor_parallel_output_grad=True, group=self.tp_group)
            else:
                x = tp.copy_to_tensor_model_parallel_region(x, group=self.tp_group)
        y = F.linear(x, self.weight)
        if self.parallel_mode == "row" and self.tp_size > 1:
            if self.sequence_parallel:
                y = tp.reduce_scatter_to_sequence_parallel_region(y, group=self.tp_group)
            else:
                y = tp.reduce_from_tensor_model_parallel_region(y, group=self.tp_group)
        if self.return_bias:
            return y, self.bias
        return y if self.bias is None else y + self.bias

    def forward(self, x: Tensor, is_first_microbatch: bool | None = None) -> Any:
        return self._multiply(x)


class LayerNormLinear(Linear):
    """RMSNorm and Linear as one module; the norm's weight is a separate parameter."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        eps: float = 1e-5,
        sequence_parallel: bool = False,
        normalization: str = "LayerNorm",
        zero_centered_gamma: bool = False,
        return_layernorm_output: bool = False,
        params_dtype: torch.dtype | None = None,
        device: Any = None,
        **kwargs: Any,
    ) -> None:
        if normalization != "RMSNorm":
            raise only_on_gpus(f"normalization={normalization}", "a model with RMSNorm, as Qwen3")
        dtype: dict[str, Any] = {"params_dtype": params_dtype, "device": device}
        super().__init__(in_features, out_features, sequence_parallel, **dtype, **kwargs)
        norm = RMSNorm(in_features, eps, sequence_parallel, zero_centered_gamma=zero_centered_gamma, **dtype)
        self.eps, self.zero_centered_gamma = eps, zero_centered_gamma
        self.layer_norm_weight = norm.weight

    def forward(self, x: Tensor, is_first_microbatch: bool | None = None) -> Any:
        return self._multiply(_rms_norm(x, self.layer_norm_weight, self.eps, self.zero_centered_gamma))


class GroupedLinear(Linear):
    """One Linear per local expert; the tokens are sorted by expert, `m_splits` of them for each."""

    def __init__(self, num_gemms: int, in_features: int, out_features: int, **kwargs: Any) -> None:
        self.num_gemms = num_gemms
        super().__init__(in_features, out_features, **kwargs)

    def _suffixes(self) -> list[str]:
        return [str(expert) for expert in range(self.num_gemms)]

    def forward(  # type: ignore[override]
        self, x: Tensor, m_splits: list[int], is_first_microbatch: bool | None = None
    ) -> Any:
        if self.use_bias:
            raise only_on_gpus("experts with a bias", "a model whose experts have none, as Qwen3-MoE")
        weights = [getattr(self, f"weight{suffix}") for suffix in self._suffixes()]
        parts = [F.linear(part, weight) for part, weight in zip(x.split(m_splits), weights, strict=True)]
        return (torch.cat(parts), None) if self.return_bias else torch.cat(parts)


class DotProductAttention(_Module):
    """Causal attention over packed sequences (`thd`) or over equally long ones (`sbhd`)."""

    def __init__(
        self,
        num_attention_heads: int,
        kv_channels: Any,
        num_gqa_groups: int | None = None,
        attention_dropout: float = 0.0,
        softmax_scale: float | None = None,
        cp_group: Any = None,
        window_size: Any = None,
        **ignored: Any,
    ) -> None:
        super().__init__()
        if attention_dropout or window_size or cp_group is not None:
            raise only_on_gpus(
                "attention with dropout, a window or context parallelism",
                "attention_dropout=0, context_parallel_size=1 and a model without sliding windows",
            )
        self.softmax_scale = softmax_scale

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[batch, length, heads, channels], shorter sequences padded at the end; the causal mask hides the padding."""
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        grouped = q.shape[1] != k.shape[1]
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.softmax_scale, enable_gqa=grouped)
        return out.transpose(1, 2).flatten(2)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        qkv_format: str | None = "sbhd",
        cu_seqlens_q: Tensor | None = None,
        cu_seqlens_q_padded: Tensor | None = None,
        attn_mask_type: str = "causal",
        **ignored: Any,  # key lengths (equal to query lengths) and hints for CUDA kernels
    ) -> Tensor:
        if "causal" not in attn_mask_type:
            raise only_on_gpus(f"attn_mask_type={attn_mask_type}", "a model with causal attention")
        if qkv_format != "thd":  # padding on the right only, as verl's is
            return self._attend(*(x.transpose(0, 1) for x in (query, key, value))).transpose(0, 1)
        bounds = cu_seqlens_q if cu_seqlens_q_padded is None else cu_seqlens_q_padded
        assert bounds is not None
        lengths = bounds.long().diff()
        position = torch.arange(int(lengths.max()), device=bounds.device)
        inside = position < lengths[:, None]
        index = torch.where(inside, bounds.long()[:-1, None] + position, 0)
        return self._attend(query[index], key[index], value[index])[inside]


LAYERS = (RMSNorm, Linear, LayerNormLinear, GroupedLinear, DotProductAttention)
