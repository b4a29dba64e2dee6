# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""vLLM's CPU build with weights that can be reloaded."""

from __future__ import annotations

import sys
import types

import pytest

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
