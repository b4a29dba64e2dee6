#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# Install verl 0.9.1 and this package into verl's image verlai/verl:vllm024.latest. Changes nothing else in it.
#
# Versions: verl 0.9.1's own extras `vllm` and `cupy-cu130`. The image (docker/Dockerfile.stable.vllm of verl, 2026-07-28) has
# Python 3.12, torch 2.11.0, vLLM 0.24.0, flash-attn 2.8.3, transformer-engine 2.16.1, apex, megatron-core 0.18.0,
# megatron-bridge 0.5.0 and DeepEP. It does not have verl. It lacks the other packages below or has older versions of them.
set -euo pipefail

pip install --no-deps \
    verl==0.9.1 \
    transformers==5.9.0 \
    TransferQueue==0.1.11 \
    tensordict==0.10.0 \
    cupy-cuda13x==14.0.1 \
    'cuda-pathfinder>=1.3.3,<2' \
    'wrapt>=1.16' \
    'typer>=0.19' \
    'rapidfuzz>=3.9' \
    'vaderSentiment>=3.3.2' # the last two: for the rewards of recipes/goodreads
pip install --no-deps "$(dirname "${BASH_SOURCE[0]}")/../.."
