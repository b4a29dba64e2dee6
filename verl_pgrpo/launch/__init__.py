# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Before a launch: what a command means for each GPU, and what would not work, found without one.

from verl_pgrpo.launch import Launch, estimate, model_of, problems

launch = Launch.of(config)                                   # verl's composed configuration
problems(model_of(launch.model_path), launch)                # what does not divide or agree, as sentences
estimate(model_of(launch.model_path), launch).describe()     # GiB per GPU, phase by phase
"""

from .divisibility import problems
from .memory import estimate
from .models import MODELS, Model, model_of
from .phases import Estimate, Phase
from .settings import Launch, Parallel

__all__ = ["MODELS", "Estimate", "Launch", "Model", "Parallel", "Phase", "estimate", "model_of", "problems"]
