# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""vLLM's CPU build with weights that can be loaded again."""

from __future__ import annotations

import sys
import types

import pytest

from tests.cpu.support import python
from verl_cpu import vllm_shims


def test_inert_on_other_platforms_and_loud_when_what_is_replaced_is_gone(monkeypatch):
    names = ("vllm", "vllm.platforms", "vllm.model_executor", "vllm.model_executor.layers")
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["vllm.model_executor.layers"].utils = layers = types.ModuleType("utils")
    layers.dispatch_cpu_unquantized_gemm = stock = object()
    for platform, is_cpu in (("", True), ("nvidia", True), ("cpu", False)):
        sys.modules["vllm.platforms"].current_platform = types.SimpleNamespace(is_cpu=lambda is_cpu=is_cpu: is_cpu)
        monkeypatch.setenv("VERL_PLATFORM", platform)
        vllm_shims.register()
        assert layers.dispatch_cpu_unquantized_gemm is stock
    sys.modules["vllm.platforms"].current_platform.is_cpu = lambda: True
    del layers.dispatch_cpu_unquantized_gemm
    with pytest.raises(RuntimeError, match="has no dispatch_cpu_unquantized_gemm"):
        vllm_shims.register()


# vLLM's own classes after vLLM's own loading of plugins; experts against each token's experts one by one.
KEPT = """
import verl, torch
from vllm.plugins import load_general_plugins; load_general_plugins()
from vllm.model_executor.layers.fused_moe.activation import MoEActivation
from vllm.model_executor.layers.fused_moe.experts import cpu_moe
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod
from types import SimpleNamespace
for method in UnquantizedLinearMethod, UnquantizedEmbeddingMethod:
    layer = torch.nn.Linear(64, 32, bias=False); weight = layer.weight.data.clone()
    method.process_weights_after_loading(None, layer)
    assert torch.equal(layer.weight.data, weight)
    layer.weight.data.zero_(); x = torch.ones(2, 64)
    assert layer.cpu_linear(x, layer.weight, None).abs().sum() == 0, 'a re-loaded weight is not used'

kernel = object.__new__(cpu_moe.X86CPUUnquantizedExperts)  # the plain one's methods, whatever the processor has
kernel.quant_config = SimpleNamespace(w1_bias=None, w2_bias=None)
torch.manual_seed(0)
x, w1, w2 = torch.randn(5, 8), torch.randn(3, 12, 8), torch.randn(3, 8, 6)
layer = SimpleNamespace(w13_weight=w1.clone(), w2_weight=w2.clone())
kernel.process_weights_after_loading(layer)
assert torch.equal(layer.w13_weight, w1) and torch.equal(layer.w2_weight, w2)
ids = torch.tensor([[0, 1], [1, 2], [2, 0], [0, 2], [1, 0]])
weights = torch.rand(5, 2)
expected = torch.zeros(5, 8)
for token in range(5):
    for expert, weight in zip(ids[token], weights[token]):
        gate, up = (w1[expert] @ x[token]).split(6)
        expected[token] += weight * (w2[expert] @ (gate * torch.sigmoid(gate) * up))
found = torch.full((5, 8), torch.nan)
arguments = dict(output=found, hidden_states=x, w1=w1, w2=w2, topk_weights=weights, topk_ids=ids, expert_map=None,
                 apply_router_weight_on_input=False, global_num_experts=3, a1q_scale=None)
kernel.apply(activation=MoEActivation.SILU, **arguments)
torch.testing.assert_close(found, expected)
try:
    kernel.apply(activation=MoEActivation.GELU, **arguments)
except RuntimeError as error:
    print(error)
"""


@pytest.mark.slow
def test_linear_and_expert_weights_are_kept():
    assert "only SwiGLU" in python(KEPT, VERL_PLATFORM="cpu")
